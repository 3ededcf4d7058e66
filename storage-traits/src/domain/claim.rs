use std::{fmt, str::FromStr, time::Duration};

use super::{
    InvalidId, Message, MessageId, QueueRef, Timestamp,
    id::{format_hex, parse_hex},
};
use crate::{Limit, random};

/// Names a claim within its queue: 128 random bits, 32 lower-case hex digits in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(u128);

impl ClaimId {
    /// A new id, which nobody can guess.
    pub fn random() -> Self {
        Self(u128::from_be_bytes(random::bytes()))
    }

    /// The bytes that stores keep.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what [`ClaimId::to_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format_hex(self.0, &mut [0; 32]))
    }
}

impl FromStr for ClaimId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_hex(text).map(Self)
    }
}

/// How long a claim holds its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTerms {
    /// The claim lapses this long after its creation or renewal. Whole seconds.
    pub ttl: Duration,
    /// A message that would expire before the claim lapses lives on until `ttl + grace` from now
    /// (Zaqar v2 API, claims). Whole seconds.
    pub grace: Duration,
}

/// A claim that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSpec {
    /// The id that the claim is to have.
    pub id: ClaimId,
    /// How long it holds.
    pub terms: ClaimTerms,
    /// How many messages it may take.
    pub limit: Limit,
    /// Where messages go that were claimed too often.
    pub dead_letter: Option<DeadLetter>,
}

/// The dead-letter rule of a queue: a message that was claimed `max_claim_count` times and is
/// free again is moved, by the next claim that comes to it, instead of being handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the message is moved to: a queue in the same pool. There it is a new message, with a
    /// new id, no claim and a claim count of 0, and remembers its origin. A rule that names the
    /// claimed queue itself does nothing.
    pub queue: QueueRef,
    /// How many claims a message may see.
    pub max_claim_count: u32,
    /// The ttl that it gets, from the move on; its own if `None`.
    pub ttl: Option<Duration>,
    /// Whether it is retained there, as a message that is posted with
    /// [`retained`](super::NewMessage::retained).
    pub retained: bool,
}

/// A consumer's hold on some messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its id.
    pub id: ClaimId,
    /// When it was created or last renewed.
    pub renewed_at: Timestamp,
    /// How long it holds from then on.
    pub ttl: Duration,
    /// The messages that it still holds, in the order of the queue.
    pub messages: Vec<Message>,
}

/// What a consumer reports about a message that its claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// It was processed: the message is removed.
    Ack,
    /// It was not processed: the message becomes visible again and keeps its position, its claim
    /// count and its expiry.
    Nack {
        /// How long it stays invisible; zero makes it ready at once.
        delay: Duration,
    },
}

/// A consumer's report about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The message.
    pub id: MessageId,
    /// Whether it was processed.
    pub outcome: AckOutcome,
}

/// Result of an [`Acknowledgement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckResult {
    /// The outcome was applied.
    Applied,
    /// The claim has ended or does not hold the message; nothing was changed.
    NotHeld,
}
