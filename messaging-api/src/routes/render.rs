//! Rendering of messages. Bodies are copied as the bytes that were posted.

use std::fmt::Write as _;

use storage_traits::domain::{ClaimId, Message, MessageId, QueueName, Timestamp};

/// Which fields a rendered message has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// `href`, which names the claim that holds or held the message.
    Linked,
    /// `claim_id`, which is null, and `claim_count`: the message has been popped.
    Popped,
}

/// Writes a JSON array of messages.
pub(super) fn messages(
    out: &mut String,
    queue: &QueueName,
    messages: &[Message],
    shape: Shape,
    now: Timestamp,
) {
    out.reserve(messages.iter().map(|m| m.body.as_bytes().len() + 256).sum());
    out.push('[');
    for (index, item) in messages.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        message(out, queue, item, shape, now);
    }
    out.push(']');
}

/// Writes a JSON object of a message.
pub(super) fn message(
    out: &mut String,
    queue: &QueueName,
    message: &Message,
    shape: Shape,
    now: Timestamp,
) {
    let Message { id, ttl, claim, .. } = message;
    let (ttl, age) = (ttl.as_secs(), age(message.posted_at, now));
    // Ids and names need no escaping. Writing to a String cannot fail.
    let _ = match shape {
        Shape::Linked => {
            let claim = claim.map_or(String::new(), |claim| format!("?claim_id={claim}"));
            let path = message_path(queue, *id);
            write!(out, r#"{{"id":"{id}","href":"{path}{claim}","ttl":{ttl},"age":{age},"body":"#)
        }
        Shape::Popped => {
            let count = message.claim_count;
            write!(
                out,
                r#"{{"id":"{id}","claim_id":null,"claim_count":{count},"ttl":{ttl},"age":{age},"body":"#
            )
        }
    };
    // A body is checked to be JSON, hence UTF-8, when it is posted.
    out.push_str(std::str::from_utf8(message.body.as_bytes()).unwrap_or("null"));
    if let Some(checksum) = &message.checksum {
        let _ = write!(out, r#","checksum":"{checksum}""#);
    }
    out.push('}');
}

/// Returns the path of a message.
pub(super) fn message_path(queue: &QueueName, id: MessageId) -> String {
    format!("/v2/queues/{queue}/messages/{id}")
}

/// Returns the path of a claim.
pub(super) fn claim_path(queue: &QueueName, id: ClaimId) -> String {
    format!("/v2/queues/{queue}/claims/{id}")
}

/// Returns the whole seconds since `then`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> u64 {
    now.since(then).as_secs()
}

/// Formats a time in UTC, to the second.
pub(super) fn utc(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_millis().div_euclid(1000)).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_to_the_second() {
        assert_eq!(utc(Timestamp::from_millis(1_769_853_600_999)), "2026-01-31T10:00:00Z");
    }
}
