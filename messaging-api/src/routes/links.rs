//! The link to the next page.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that a query must encode: all but the unreserved ones (RFC 3986).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of the request that the next page repeats, with a new marker.
#[derive(Debug, Default)]
pub(super) struct NextLink(Vec<(&'static str, String)>);

impl NextLink {
    /// Adds a parameter, if the request has it.
    pub(super) fn with(mut self, key: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (key, value.to_string())));
        self
    }

    /// Returns the link. The marker keeps its position in the request, or comes last.
    pub(super) fn href(mut self, path: &str, marker: &str) -> String {
        match self.0.iter_mut().find(|(key, _)| *key == "marker") {
            Some((_, old)) => marker.clone_into(old),
            None => self.0.push(("marker", marker.to_owned())),
        }
        let mut href = path.to_owned();
        for (index, (key, value)) in self.0.iter().enumerate() {
            href.push(if index == 0 { '?' } else { '&' });
            href.extend([key, "="]);
            href.extend(utf8_percent_encode(value, ENCODED));
        }
        href
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_keeps_its_place_and_else_comes_last() {
        let first = NextLink::default().with("marker", None::<&str>).with("limit", Some(1));
        assert_eq!(first.href("/v2/queues", "q1"), "/v2/queues?limit=1&marker=q1");
        let next = NextLink::default()
            .with("marker", Some("q1"))
            .with("detailed", Some(true))
            .with("name", Some("a&b"));
        assert_eq!(next.href("/v2/queues", "q2"), "/v2/queues?marker=q2&detailed=true&name=a%26b");
    }
}
