//! Reads values from responses by searching the text. Parsing the JSON would cost the load
//! generator more than a claim costs the server.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::Uri;
use memchr::memmem;

/// Precedes the time of a post in a message's body; see [`stamp`].
const STAMP: &[u8] = b"at=";
const STAMP_DIGITS: usize = 20;

/// Returns the ids of the messages in a response, in order.
///
/// The bodies must not contain a key `id`, which is true of those of this program.
pub(crate) fn ids(body: &[u8]) -> impl Iterator<Item = &str> {
    memmem::find_iter(body, b"\"id\":").filter_map(move |at| text(&body[at + 5..]))
}

/// Returns the URI of the next page, if the response has one.
pub(crate) fn next_page(body: &Bytes) -> Option<Uri> {
    let links = memmem::rfind(body, b"\"links\"")?;
    let href = links + memmem::find(&body[links..], b"\"href\":")? + 7;
    let next = text(&body[href..])?;
    // Shares the memory of the response.
    Uri::from_maybe_shared(body.slice_ref(next.as_bytes())).ok()
}

/// Returns the text for `time` in a body. Its length is constant.
pub(crate) fn stamp(time: Duration) -> String {
    format!("at={:0STAMP_DIGITS$}", time.as_nanos())
}

/// Returns the times in the bodies of the messages in a response.
pub(crate) fn stamps(body: &[u8]) -> impl Iterator<Item = Duration> {
    memmem::find_iter(body, STAMP).filter_map(move |at| {
        let digits = body.get(at + STAMP.len()..)?.get(..STAMP_DIGITS)?;
        let nanos = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    })
}

/// Returns the JSON string at the start, after blanks. Ids and URIs contain no escapes.
fn text(mut json: &[u8]) -> Option<&str> {
    while json.first() == Some(&b' ') {
        json.advance(1);
    }
    let rest = json.strip_prefix(b"\"")?;
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"messages":[{"id":"a1","href":"/m/a1","body":"at=00000000000000000042"},
        {"id": "b2","href":"/m/b2","claim_id":"c","body":{"href":"/no"}}],
        "links":[{"rel":"next","href":"/v2/queues/q/messages?limit=10&marker=b2"}]}"#;

    #[test]
    fn ids_are_found_in_order() {
        assert_eq!(ids(PAGE.as_bytes()).collect::<Vec<_>>(), ["a1", "b2"]);
        assert_eq!(ids(br#"{"messages":[],"links":[]}"#).count(), 0);
    }

    #[test]
    fn the_next_page_is_found() {
        let next = next_page(&Bytes::from_static(PAGE.as_bytes())).unwrap();
        assert_eq!(next, "/v2/queues/q/messages?limit=10&marker=b2");
        assert_eq!(next_page(&Bytes::from_static(br#"{"messages":[],"links":[]}"#)), None);
    }

    #[test]
    fn a_stamp_survives_a_round_trip() {
        assert_eq!(stamps(PAGE.as_bytes()).collect::<Vec<_>>(), [Duration::from_nanos(42)]);
        let time = Duration::from_micros(123_456_789);
        assert_eq!(stamps(stamp(time).as_bytes()).next(), Some(time));
        assert_eq!(stamps(b"at=12").next(), None);
    }
}
