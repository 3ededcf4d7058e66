use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// The query string by the rules of the contract: repeated keys and values with commas are lists, a
/// percent-encoded comma does not separate, and a key without a value is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, Vec<String>)>);

impl FromRequest for Query {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::parse(request.query_string())))
    }
}

impl Query {
    /// Parses a query string. No string is an error.
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key.is_empty() || value.is_empty() {
                continue;
            }
            let values = value.split(',').filter(|item| !item.is_empty()).map(decode);
            let key = decode(key);
            match parsed.0.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => known.extend(values),
                None => parsed.0.push((key, values.collect())),
            }
        }
        parsed
    }

    /// Returns all values of a key; `None` if the key is missing.
    pub(crate) fn list(&self, key: &str) -> Option<&[String]> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, values)| values.as_slice())
    }

    /// Returns the last value of a key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.list(key)?.last().map(String::as_str)
    }

    /// Returns the last value of a key as an integer, saturated to 64 bits.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        parse_integer(text).map(Some).ok_or_else(|| {
            ApiError::Parameter(format!("the parameter \"{key}\" must be an integer"))
        })
    }

    /// Returns the last value of a key as a boolean, in the exact spellings of the contract.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "True" | "t" | "yes" | "y" | "1" | "on") => Ok(Some(true)),
            Some("false" | "False" | "f" | "no" | "n" | "0" | "off") => Ok(Some(false)),
            Some(_) => Err(ApiError::Parameter(format!(
                "the parameter \"{key}\" must be \"true\" or \"false\""
            ))),
        }
    }

    /// Returns the keys that are not among `known`, with their values.
    pub(crate) fn others(&self, known: &[&str]) -> impl Iterator<Item = (&str, &[String])> {
        self.0
            .iter()
            .filter(move |(key, _)| !known.contains(&key.as_str()))
            .map(|(key, values)| (key.as_str(), values.as_slice()))
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// Parses an integer as Python's `int()` does: with surrounding blanks, a sign, `_` between digits.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.split('_').any(|group| group.is_empty() || !group.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let magnitude = digits.bytes().filter(u8::is_ascii_digit).fold(0_i64, |number, digit| {
        number.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_repeated_keys_or_commas() {
        let query = Query::parse("ids=a,b&ids=c&x=1%2C2&blank=&empty=,&=v");
        assert_eq!(query.list("ids").unwrap(), ["a", "b", "c"]);
        assert_eq!(query.list("x").unwrap(), ["1,2"]);
        assert_eq!(query.list("blank"), None);
        assert_eq!(query.list("empty"), Some(&[][..]));
        assert_eq!(query.text("ids"), Some("c"));
    }

    #[test]
    fn integers_are_read_as_python_reads_them() {
        for (text, number) in [("10", 10), (" +1_000 ", 1000), ("-0", 0), ("-7", -7)] {
            assert_eq!(parse_integer(text), Some(number), "{text}");
        }
        assert_eq!(parse_integer("99999999999999999999"), Some(i64::MAX));
        for text in ["", "1.0", "_1", "1_", "1__0", "ten", "+", "0x1", "1 0"] {
            assert_eq!(parse_integer(text), None, "{text}");
        }
    }

    #[test]
    fn a_flag_has_fixed_spellings() {
        assert_eq!(Query::parse("a=on").flag("a").unwrap(), Some(true));
        assert_eq!(Query::parse("a=False").flag("a").unwrap(), Some(false));
        assert_eq!(Query::parse("b=1").flag("a").unwrap(), None);
        assert!(Query::parse("a=TRUE").flag("a").is_err());
    }
}
