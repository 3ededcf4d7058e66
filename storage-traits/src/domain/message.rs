use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{ClaimId, MessageId, Origin, Timestamp, name::InvalidName};

/// Body of a message: JSON text, stored and returned byte for byte as it was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Creates a body from text that the caller has checked to be one JSON value.
    pub const fn from_json(text: Bytes) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Id of the client that posted a message: 1 to 36 characters by default, a UUID where the
/// configuration requires one. It serves only to hide a client's own messages from it, and does not
/// authenticate the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Creates an id from its canonical spelling; ids are compared as text.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id that a producer gives a message to make its post idempotent: 1 to 128 characters, none of
/// them a control character. Stores compare it exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeduplicationId(Arc<str>);

impl DeduplicationId {
    /// Greatest length of an id, in characters.
    pub const MAX_CHARS: usize = 128;

    /// Returns the id as text.
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

/// Key of messages that must be processed in order: 1 to 128 characters, none of them a control
/// character. At most one claim at a time holds messages of one key. Stores compare it exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderingKey(Arc<str>);

impl OrderingKey {
    /// Greatest length of a key, in characters.
    pub const MAX_CHARS: usize = 128;

    /// Returns the key of all messages in a strictly ordered (FIFO) queue. No text parses to it, so
    /// no producer can use it.
    pub fn whole_queue() -> Self {
        Self("".into())
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the form that [`OrderingKey::as_str`] returns.
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

/// Request to store a message only if no message with the same id was posted recently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplication {
    /// Id that is compared, within one incarnation of a queue.
    pub id: DeduplicationId,
    /// Time from this post on during which another post with the id is a duplicate. Whole seconds;
    /// the API allows 1 to 86,400 and uses 300 by default.
    pub window: Duration,
}

/// Time at which a new message becomes visible to claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A delay after the post. The ttl counts from the post. The API allows 0 to 900 seconds by
    /// default.
    After(Duration),
    /// A scheduled time, or the time of the post if that is later. The ttl counts from then. The
    /// API allows times as far ahead as a message may live.
    At(Timestamp),
}

impl Delivery {
    /// Delivery without a delay.
    pub const IMMEDIATE: Self = Self::After(Duration::ZERO);
}

/// Message to post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Body of the message.
    pub body: Body,
    /// Time until it expires. Whole seconds; the API allows 60 to 1,209,600 by default.
    pub ttl: Duration,
    /// Time at which it becomes visible. Until then, claims, pops and plain lists do not return it.
    pub delivery: Delivery,
    /// Key of the messages that must be processed in order; `None` if the order does not matter.
    pub ordering_key: Option<OrderingKey>,
    /// Deduplication of the post; `None` stores the message in any case.
    pub deduplication: Option<Deduplication>,
    /// Whether the message is kept until its ttl ends for groups that are created or moved back
    /// later, even after the queue and all its groups have removed it.
    pub retained: bool,
    /// Checksum of the body, if the service computes checksums. The pool stores it and does not
    /// interpret it.
    pub checksum: Option<String>,
}

impl NewMessage {
    /// Returns the times at which the message becomes visible and at which it expires, if it is
    /// posted at `now`.
    pub fn lifetime(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self.delivery {
            Delivery::After(delay) => (now.plus(delay), now.plus(self.ttl)),
            Delivery::At(time) => {
                let visible_at = time.max(now);
                (visible_at, visible_at.plus(self.ttl))
            }
        }
    }
}

/// Result of posting one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Id of the stored message; for a duplicate, of the message that was stored first.
    pub id: MessageId,
    /// Whether the message was not stored, because one with its deduplication id was stored before.
    pub duplicate: bool,
}

/// Stored message, as a queue or a group has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Id, which contains the position.
    pub id: MessageId,
    /// Time of the post, of the dead-letter move or of the redrive that stored it.
    pub posted_at: Timestamp,
    /// Time from which on it can be claimed: as posted or rescheduled, or the end of the delay of
    /// its last nack.
    pub visible_at: Timestamp,
    /// Time at which it expires. From then on no method returns or counts it.
    pub expires_at: Timestamp,
    /// Ttl as posted, or as a claim extended it. Whole seconds.
    pub ttl: Duration,
    /// Claim that holds it, or the last claim that expired while holding it; `None` after a release
    /// or a nack.
    pub claim: Option<ClaimId>,
    /// Number of claims that have held it.
    pub claim_count: u32,
    /// Client that posted it.
    pub client: ClientId,
    /// Ordering key as posted.
    pub ordering_key: Option<OrderingKey>,
    /// Source of the message if it is a dead letter; `None` for other messages, and once its source
    /// no longer exists ([`Redriven::orphaned`](crate::pool::Redriven::orphaned)).
    pub origin: Option<Origin>,
    /// Checksum as posted.
    pub checksum: Option<String>,
    /// Body as posted.
    pub body: Body,
}
