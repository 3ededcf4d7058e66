use std::time::Duration;

use super::{ClaimId, Message, MessageId, QueueRef, Timestamp};
use crate::Limit;

/// Duration of a claim, and of the messages that it holds (Zaqar v2 API, claims).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTerms {
    /// Time from the creation or the last renewal of the claim to its expiry: the visibility
    /// timeout of its messages. Whole seconds; the API allows 60 to 43,200 by default.
    pub ttl: Duration,
    /// Extension of messages that would expire before the claim: such a message expires at
    /// `now + ttl + grace`. Whole seconds; the API allows 60 to 43,200 by default.
    pub grace: Duration,
}

/// Request for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSpec {
    /// Id of the new claim.
    pub id: ClaimId,
    /// Duration of the new claim.
    pub terms: ClaimTerms,
    /// Greatest number of messages to claim.
    pub limit: Limit,
    /// Rule that moves messages which were claimed too often; `None` moves none.
    pub dead_letter: Option<DeadLetter>,
}

/// Dead-letter rule of a queue or group. A claim that meets a ready message with a claim count of
/// `max_claim_count` or more moves it to the dead-letter queue instead of claiming it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Dead-letter queue, in the same pool. The dead letter is a new message there, with a new id,
    /// no claim, a claim count of 0 and an [`Origin`](super::Origin). A rule that names the claimed
    /// queue itself, or the queue of the claimed group, has no effect.
    pub queue: QueueRef,
    /// Number of claims after which a message is moved; 0 moves it before the first.
    pub max_claim_count: u32,
    /// Ttl of the dead letter, counted from the move; `None` keeps the ttl of the message. Whole
    /// seconds.
    pub ttl: Option<Duration>,
    /// Whether the dead-letter queue retains the message, like one that was posted with
    /// [`retained`](super::NewMessage::retained).
    pub retained: bool,
}

/// Reservation of messages for one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Id of the claim.
    pub id: ClaimId,
    /// Time of its creation or last renewal.
    pub renewed_at: Timestamp,
    /// Time from `renewed_at` to its expiry. Whole seconds.
    pub ttl: Duration,
    /// Messages that it still holds, in the order of the queue.
    pub messages: Vec<Message>,
}

/// Outcome that a consumer reports for a message which its claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// The consumer processed the message. It is removed.
    Ack,
    /// The consumer did not process the message. It leaves the claim and keeps its position, its
    /// claim count and its expiry.
    Nack {
        /// Time until the message is visible again; zero makes it ready at once. A message that
        /// expires earlier is not visible again.
        delay: Duration,
    },
}

/// Report of a consumer about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Id of the message.
    pub id: MessageId,
    /// Outcome that the consumer reports.
    pub outcome: AckOutcome,
}

/// Result of an [`Acknowledgement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckResult {
    /// The outcome was applied.
    Applied,
    /// The claim has expired, was released, never existed, or does not hold the message. Nothing
    /// was changed.
    NotHeld,
}
