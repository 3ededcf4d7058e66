use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{ClaimId, MessageId, Origin, Timestamp, name::InvalidName};

/// A message's body: JSON text, kept byte by byte as it was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Takes text that was checked to be one JSON value.
    pub const fn from_json(text: Bytes) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who posted a message: text of 1 to 36 characters, a UUID in its plain form where UUIDs are
/// asked for. It only serves to hide a client's own messages from it, and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes an id in the one spelling by which it is to be compared.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a producer calls a message, so that a post which is tried again stores it once: 1 to 128
/// characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeduplicationId(Arc<str>);

impl DeduplicationId {
    /// The longest id, in characters.
    pub const MAX_CHARS: usize = 128;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeduplicationId {
    type Err = InvalidName;

    fn from_str(id: &str) -> Result<Self, InvalidName> {
        if is_label(id, Self::MAX_CHARS) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidName::Deduplication)
        }
    }
}

/// What must be handled in order: text of 1 to 128 characters, none of them a control character. Of
/// the messages with one key at most one claim holds any at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderingKey(Arc<str>);

impl OrderingKey {
    /// The longest key, in characters.
    pub const MAX_CHARS: usize = 128;

    /// The key that all messages of a strictly ordered queue have; no producer can name it.
    pub fn whole_queue() -> Self {
        Self("".into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads what a store kept of [`OrderingKey::as_str`].
    pub fn from_store(key: &str) -> Self {
        Self(key.into())
    }
}

impl FromStr for OrderingKey {
    type Err = InvalidName;

    fn from_str(key: &str) -> Result<Self, InvalidName> {
        if is_label(key, Self::MAX_CHARS) {
            Ok(Self(key.into()))
        } else {
            Err(InvalidName::OrderingKey)
        }
    }
}

fn is_label(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Whether a message is stored if one like it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplication {
    /// What is compared, within a life of the queue.
    pub id: DeduplicationId,
    /// For how long, from this post on, another with the id is a duplicate of it.
    pub window: Duration,
}

/// When a new message becomes visible to claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// After a while; its ttl counts from the post on.
    After(Duration),
    /// At a moment, or at once if that has passed; its ttl counts from then on.
    At(Timestamp),
}

impl Delivery {
    /// Without delay.
    pub const IMMEDIATE: Self = Self::After(Duration::ZERO);
}

/// A message that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The body.
    pub body: Body,
    /// How long it may be served. Whole seconds.
    pub ttl: Duration,
    /// How long it stays hidden from claims and from plain lists.
    pub delivery: Delivery,
    /// If it has to be handled after those that were posted with the same key before.
    pub ordering_key: Option<OrderingKey>,
    /// If it may have been posted before.
    pub deduplication: Option<Deduplication>,
    /// Whether groups that start later, or move back, find it until its ttl ends, even if the queue
    /// and all groups are done with it by then.
    pub retained: bool,
    /// What was computed over the body, if the service keeps checksums.
    pub checksum: Option<String>,
}

impl NewMessage {
    /// From when on it is visible, and from when on it is gone, if it is posted at `now`.
    pub fn lifetime(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self.delivery {
            Delivery::After(delay) => (now.plus(delay), now.plus(self.ttl)),
            Delivery::At(moment) => {
                let visible_at = moment.max(now);
                (visible_at, visible_at.plus(self.ttl))
            }
        }
    }
}

/// What became of a message that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Its id; of a duplicate, the id of the message that was stored first.
    pub id: MessageId,
    /// Whether nothing was stored, because a message with its deduplication id had been.
    pub duplicate: bool,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name and position.
    pub id: MessageId,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// From when on it may be claimed: as posted, or as it was put off when its handling failed.
    pub visible_at: Timestamp,
    /// From when on it is gone.
    pub expires_at: Timestamp,
    /// As posted, or as a claim extended it. Whole seconds.
    pub ttl: Duration,
    /// The claim that holds it, or the last one that did and let it lapse; a released message
    /// has none.
    pub claim: Option<ClaimId>,
    /// How many claims have taken it so far.
    pub claim_count: u32,
    /// Who posted it.
    pub client: ClientId,
    /// As posted.
    pub ordering_key: Option<OrderingKey>,
    /// Where it comes from, if it is a dead letter.
    pub origin: Option<Origin>,
    /// As posted.
    pub checksum: Option<String>,
    /// As posted.
    pub body: Body,
}
