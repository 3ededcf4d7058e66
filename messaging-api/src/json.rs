//! Parsing of JSON request bodies (Zaqar v2 API, JSON body rules).

use serde_json::{Map, Value};

use crate::error::ApiError;

/// How deeply values may be nested.
const MAX_DEPTH: usize = 128;

/// Returns the text of a body that begins like a JSON object or array.
pub(crate) fn text(body: &[u8]) -> Result<&str, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::Body("the body could not be parsed: it is not UTF-8".into()))?;
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{' | b'[') => Ok(text),
        Some(_) => Err(unparsable("it must be a JSON object or array")),
        None => Err(ApiError::Body("the request has no body".into())),
    }
}

/// Parses a body that must be an object into a tree. For small bodies only.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match value(body)? {
        Value::Object(map) => Ok(map),
        _ => Err(ApiError::Body("the body must be a JSON object, not an array".into())),
    }
}

/// Parses a body into a tree. For small bodies only.
pub(crate) fn value(body: &[u8]) -> Result<Value, ApiError> {
    let text = text(body)?;
    let value = serde_json::from_str(text).map_err(unparsable)?;
    within_bounds(text)?;
    Ok(value)
}

/// Returns the error of a body that is not JSON.
pub(crate) fn unparsable(why: impl std::fmt::Display) -> ApiError {
    ApiError::Body(format!("the body could not be parsed: {why}"))
}

/// Refuses integers beyond 64 bits and deep nesting, which the parsers accept. `json` is valid
/// JSON.
pub(crate) fn within_bounds(json: &str) -> Result<(), ApiError> {
    if may_be_deep(json.as_bytes()) || has_long_number(json.as_bytes()) {
        walk(json)
    } else {
        Ok(())
    }
}

/// Does the same for a post, where the nesting of each message is limited by itself.
pub(crate) fn post_within_bounds<'b>(
    json: &str,
    mut bodies: impl Iterator<Item = &'b str>,
) -> Result<(), ApiError> {
    if has_long_number(json.as_bytes()) {
        return walk(json);
    }
    bodies.try_for_each(within_bounds)
}

/// The digits of the shortest integer that does not fit into 64 bits.
const MIN_LONG_DIGITS: usize = 19;

/// Returns whether the text has a long run of digits. It looks at every 19th byte only, since a run
/// of 19 digits contains one of them.
fn has_long_number(json: &[u8]) -> bool {
    (MIN_LONG_DIGITS - 1..json.len()).step_by(MIN_LONG_DIGITS).any(|at| {
        let digits = |bytes: &mut dyn Iterator<Item = &u8>| {
            bytes.take(MIN_LONG_DIGITS).take_while(|byte| byte.is_ascii_digit()).count()
        };
        json[at].is_ascii_digit()
            && digits(&mut json[at..].iter()) + digits(&mut json[..at].iter().rev())
                >= MIN_LONG_DIGITS
    })
}

/// Returns whether the text has enough opening brackets to be nested too deeply.
fn may_be_deep(json: &[u8]) -> bool {
    json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() > MAX_DEPTH
}

fn walk(json: &str) -> Result<(), ApiError> {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(unparsable(format!("it is nested more than {MAX_DEPTH} deep")));
                }
            }
            b'}' | b']' => depth -= 1,
            b'-' | b'0'..=b'9' => {
                let end = bytes[at..]
                    .iter()
                    .position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                    .map_or(bytes.len(), |length| at + length);
                let number = &json[at..end];
                let integer = !number.contains(['.', 'e', 'E']);
                if integer && number.len() >= MIN_LONG_DIGITS && number.parse::<i64>().is_err() {
                    return Err(unparsable("an integer is too large"));
                }
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Returns the position of the quote that ends a string.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2; // the backslash and what it escapes
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_beyond_64_bits_are_refused_wherever_they_stand() {
        for json in ["[9223372036854775808]", "{\"a\":[{\"b\":-9223372036854775809}]}"] {
            assert!(value(json.as_bytes()).is_err(), "{json}");
        }
        for json in [
            "[9223372036854775807,-9223372036854775808]",
            "[\"9223372036854775808\",\"\\\"99999999999999999999\\\\\"]",
            "[92233720368547758080.0, 1e30]",
        ] {
            assert!(value(json.as_bytes()).is_ok(), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(within_bounds(&nested(128)).is_ok());
        assert!(within_bounds(&nested(129)).is_err());
    }

    proptest! {
        #[test]
        fn the_quick_look_misses_nothing(text in "[\\[{,0-9a]{0,80}") {
            let long = text.as_bytes().windows(MIN_LONG_DIGITS).any(|run| run.iter().all(u8::is_ascii_digit));
            prop_assert_eq!(has_long_number(text.as_bytes()), long);
        }

        #[test]
        fn any_valid_text_of_small_numbers_is_within_bounds(text: String, number: i64) {
            let json = serde_json::json!([text, number, { text.clone(): number }]).to_string();
            prop_assert!(within_bounds(&json).is_ok());
        }
    }
}
