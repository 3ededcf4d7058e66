use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{ClaimId, MessageId, Timestamp};

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

/// A message that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The body.
    pub body: Body,
    /// How long it may be served, from the post on. Whole seconds.
    pub ttl: Duration,
    /// How long it stays hidden from claims and from plain lists, from the post on.
    pub delay: Duration,
    /// What was computed over the body, if the service keeps checksums.
    pub checksum: Option<String>,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name and position.
    pub id: MessageId,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// From when on it may be claimed.
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
    pub checksum: Option<String>,
    /// As posted.
    pub body: Body,
}
