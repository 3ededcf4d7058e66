//! The reserved keys of a queue's metadata (Zaqar v2 API, reserved queue metadata).

use std::time::Duration;

use serde_json::{Map, Value};
use storage_traits::domain::{Metadata, QueueName};

use super::retry_policy;
use crate::{
    coerce::{integer, is_falsy},
    config::{Limits, MIN_TTL},
};

pub(super) const MAX_POST_SIZE: &str = "_max_messages_post_size";
pub(super) const DEFAULT_TTL: &str = "_default_message_ttl";
pub(super) const DEFAULT_DELAY: &str = "_default_message_delay";
pub(super) const DEAD_LETTER_QUEUE: &str = "_dead_letter_queue";
pub(super) const DEAD_LETTER_TTL: &str = "_dead_letter_queue_messages_ttl";
pub(super) const MAX_CLAIM_COUNT: &str = "_max_claim_count";
pub(super) const ENCRYPT: &str = "_enable_encrypt_messages";
/// Whether all messages of a queue are delivered in one order.
const FIFO: &str = "_fifo";
/// For how many seconds a deduplication id suppresses duplicates.
const DEDUPLICATION_WINDOW: &str = "_deduplication_window";
/// How long messages are retained for groups.
const RETENTION: &str = "_retention";
/// Until the queue and all its groups have acknowledged them, or their ttl ends.
const UNTIL_ACKNOWLEDGED: &str = "acknowledged";
/// Until their ttl ends.
const UNTIL_TTL: &str = "ttl";
const MAX_DEDUPLICATION_WINDOW: i64 = 24 * 60 * 60;
const DEFAULT_DEDUPLICATION_WINDOW: Duration = Duration::from_mins(5);
const RETRY_POLICY: &str = "_retry_policy";

/// The reserved keys that are shown with their default if they are not set.
pub(super) const SHOWN: [&str; 7] = [
    MAX_POST_SIZE,
    DEFAULT_TTL,
    DEFAULT_DELAY,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_TTL,
    MAX_CLAIM_COUNT,
    ENCRYPT,
];

/// Checks the reserved keys. The error is a clause that says what is wrong.
pub(super) fn check(metadata: &Map<String, Value>, limits: &Limits) -> Result<(), String> {
    let max_post_size = i64::try_from(limits.max_messages_post_size).unwrap_or(i64::MAX);
    for (key, range) in [
        (MAX_POST_SIZE, 1..=max_post_size),
        (DEFAULT_TTL, MIN_TTL..=limits.max_message_ttl),
        (DEFAULT_DELAY, 0..=limits.max_message_delay),
        (DEAD_LETTER_TTL, MIN_TTL..=limits.max_message_ttl),
        (MAX_CLAIM_COUNT, i64::MIN..=i64::MAX),
        (DEDUPLICATION_WINDOW, 1..=MAX_DEDUPLICATION_WINDOW),
    ] {
        let Some(value) = set(metadata, key) else { continue };
        let number = integer(value).ok_or_else(|| format!("\"{key}\" must be an integer"))?;
        if !range.contains(&number) {
            return Err(format!("\"{key}\" must be {} to {}", range.start(), range.end()));
        }
    }
    if set(metadata, FIFO).is_some_and(|value| !value.is_boolean()) {
        return Err(format!("\"{FIFO}\" must be true or false"));
    }
    if set(metadata, RETENTION)
        .is_some_and(|value| *value != UNTIL_ACKNOWLEDGED && *value != UNTIL_TTL)
    {
        let text = format!("\"{RETENTION}\" must be \"{UNTIL_ACKNOWLEDGED}\" or \"{UNTIL_TTL}\"");
        return Err(text);
    }
    match set(metadata, ENCRYPT) {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            return Err(format!("\"{ENCRYPT}\" cannot be true: no encryption key is configured"));
        }
        Some(_) => return Err(format!("\"{ENCRYPT}\" must be true or false")),
    }
    match set(metadata, RETRY_POLICY) {
        Some(policy) => retry_policy::check(policy),
        None => Ok(()),
    }
}

fn set<'m>(metadata: &'m Map<String, Value>, key: &str) -> Option<&'m Value> {
    metadata.get(key).filter(|value| !value.is_null())
}

/// Returns the metadata as they are shown: unset and falsy reserved keys have their default.
pub(super) fn with_defaults(metadata: &Metadata, limits: &Limits) -> Map<String, Value> {
    let mut shown = metadata.as_map().clone();
    for key in SHOWN {
        if shown.get(key).is_none_or(is_falsy) {
            let default = match key {
                MAX_POST_SIZE => limits.max_messages_post_size.into(),
                DEFAULT_TTL => limits.default_message_ttl.into(),
                DEFAULT_DELAY => limits.default_message_delay.into(),
                ENCRYPT => false.into(),
                _ => Value::Null,
            };
            shown.insert(key.to_owned(), default);
        }
    }
    shown
}

/// The reserved keys in parsed form. Unset and falsy keys are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) max_post_size: Option<usize>,
    pub(super) default_ttl: Option<Duration>,
    pub(super) default_delay: Option<Duration>,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) deduplication_window: Duration,
    pub(super) fifo: bool,
    /// Whether messages are retained for groups until their ttl ends.
    pub(super) retained: bool,
}

/// The dead-letter rule of a queue or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetters {
    pub(super) queue: QueueName,
    pub(super) max_claim_count: u32,
    pub(super) ttl: Option<Duration>,
}

impl Settings {
    /// Parses metadata that have been checked.
    pub(super) fn parse(metadata: &Metadata) -> Self {
        let number = |key| metadata.get(key).filter(|value| !is_falsy(value)).and_then(integer);
        let seconds =
            |key| number(key).and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs);
        let queue = metadata.get(DEAD_LETTER_QUEUE).and_then(Value::as_str);
        let dead_letters = number(MAX_CLAIM_COUNT)
            .zip(queue.and_then(|name| name.parse().ok()))
            .map(|(count, queue)| DeadLetters {
                queue,
                max_claim_count: u32::try_from(count.max(0)).unwrap_or(u32::MAX),
                ttl: seconds(DEAD_LETTER_TTL),
            });
        Self {
            max_post_size: number(MAX_POST_SIZE).and_then(|n| usize::try_from(n).ok()),
            default_ttl: seconds(DEFAULT_TTL),
            default_delay: seconds(DEFAULT_DELAY),
            dead_letters,
            deduplication_window: seconds(DEDUPLICATION_WINDOW)
                .unwrap_or(DEFAULT_DEDUPLICATION_WINDOW),
            fifo: metadata.get(FIFO) == Some(&Value::Bool(true)),
            retained: metadata.get(RETENTION).is_some_and(|value| value == UNTIL_TTL),
        }
    }
}
