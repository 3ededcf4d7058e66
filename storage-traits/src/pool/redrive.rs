use std::num::NonZeroU32;

use async_trait::async_trait;

use crate::{
    Limit, Result,
    domain::{QueueRef, Timestamp},
};

/// Parameters of [`DeadLetterStore::redrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedriveSpec {
    /// Greatest number of messages to examine: those moved and those found to be orphaned together.
    pub limit: Limit,
    /// Number of moved messages that become visible in a second; all at once if `None`. The API
    /// allows 1 to 100,000.
    pub rate: Option<NonZeroU32>,
}

/// Result of one redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// Number of messages that were moved back.
    pub moved: u64,
    /// Number of messages that stay in the dead-letter queue because the queue or group they came
    /// from no longer exists. Each loses its origin, and so is counted once.
    pub orphaned: u64,
    /// Whether the limit left other dead letters that could be moved now.
    pub more: bool,
    /// Time at which the last of the moved messages becomes visible; `now` if none was moved.
    pub last_visible_at: Timestamp,
}

/// Redrive: moves messages from a dead-letter queue back to their source.
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Moves ready dead letters, oldest first, back to the end of their source: the queue or the
    /// group named by their [`Origin`](crate::domain::Origin), and no other group of that queue.
    ///
    /// A moved message is a new message there, with a new id, no claim, a claim count of 0, its
    /// ordering key, and the ttl that it had there, counted from the time at which it becomes
    /// visible. These messages stay: those without an origin, claimed and delayed messages, and
    /// those whose ordering key is blocked.
    ///
    /// With a rate of r, each message becomes visible 1/r seconds after the one before; times are
    /// rounded down to milliseconds. The first becomes visible 1/r seconds after the last one of
    /// the previous call with a rate, or at `now` if that is later, so consecutive calls keep the
    /// rate together.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven>;
}
