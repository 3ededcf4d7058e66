use std::num::NonZeroU32;

use async_trait::async_trait;

use crate::{
    Limit, Result,
    domain::{QueueRef, Timestamp},
};

/// How to move dead letters back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedriveSpec {
    /// How many.
    pub limit: Limit,
    /// How many of them become visible in a second; all at once if `None`.
    pub rate: Option<NonZeroU32>,
}

/// What a redrive did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// Messages that went back.
    pub moved: u64,
    /// Messages that stay, because where they came from is gone. Each is counted once: from then on
    /// it is a message like any.
    pub orphaned: u64,
    /// Whether others follow that could be moved now.
    pub more: bool,
    /// When the last of those that were moved becomes visible; the time of the call if none was.
    pub last_visible_at: Timestamp,
}

/// The way back for messages that were claimed too often.
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Moves free dead letters, the oldest first, back to the end of where they came from: the queue
    /// or the group which gave up on them, and nobody else. There each is a new message, with a new
    /// id, no claim, a claim count of 0, and the ordering key and the ttl that it had; the ttl counts
    /// from when it becomes visible. Messages without an origin stay, and those that could not be
    /// claimed now: claimed and delayed ones, and those whose key is busy.
    ///
    /// With a rate of r, each becomes visible 1/r seconds after the one before (times are cut to
    /// milliseconds), and the first 1/r seconds after the last of the call before, if that had a
    /// rate too and has not passed: calls one after the other keep the pace together.
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
