//! The bodies of posts, the same for the service and the baselines.

use anyhow::{Result, ensure};
use bytes::Bytes;

/// The API's limit on the body of one post.
const MAX_POST_BYTES: usize = 262_144;

/// Returns JSON text of exactly `bytes` bytes (at least 2), half of it structure and half a string.
///
/// The service validates bodies as JSON. A single long string would be cheaper to validate than
/// typical bodies.
pub(crate) fn message_body(bytes: usize) -> String {
    const OPEN: &str = r#"{"event":"order.created","items":["#;
    const ITEM: &str = r#"{"sku":"A-1001","count":2,"price":1999}"#;
    const NOTE: &str = r#"],"note":""#;
    const CLOSE: &str = r#""}"#;
    let frame = OPEN.len() + NOTE.len() + CLOSE.len();
    if bytes < frame + ITEM.len() {
        return format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
    }
    let items = (bytes / 2 / (ITEM.len() + 1)).max(1);
    let mut body = OPEN.to_owned();
    body.push_str(&vec![ITEM; items].join(","));
    body.push_str(NOTE);
    body.push_str(&"x".repeat(bytes - body.len() - CLOSE.len()));
    body.push_str(CLOSE);
    body
}

/// Returns a post of `count` messages with the same body.
pub(crate) fn post(body: &str, count: usize) -> Result<Bytes> {
    let message = format!(r#"{{"ttl":3600,"body":{body}}}"#);
    let post = format!(r#"{{"messages":[{}]}}"#, vec![message; count].join(","));
    ensure!(
        post.len() <= MAX_POST_BYTES,
        "{count} messages of {} bytes are more than a post may hold ({MAX_POST_BYTES} bytes)",
        body.len()
    );
    Ok(Bytes::from(post))
}

/// Returns the batch size for posts whose speed is not measured.
pub(crate) fn largest_batch(body_bytes: usize) -> usize {
    const FRAME: usize = 32;
    (MAX_POST_BYTES / 2 / (body_bytes + FRAME)).clamp(1, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_requested_size_and_is_json() {
        for bytes in [2, 3, 50, 85, 86, 100, 1024, 250_000] {
            let body = message_body(bytes);
            assert_eq!(body.len(), bytes);
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
    }

    #[test]
    fn a_batch_is_a_valid_post() {
        let sent = post(&message_body(100), 3).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["messages"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_largest_batch_fits_into_a_post() {
        for bytes in [2, 1024, 100_000, 250_000] {
            post(&message_body(bytes), largest_batch(bytes)).unwrap();
        }
        assert!(post(&message_body(250_000), 2).is_err());
    }
}
