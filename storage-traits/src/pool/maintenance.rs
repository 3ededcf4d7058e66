use async_trait::async_trait;

use crate::{
    Result,
    domain::{MessageId, QueueRef, Timestamp},
    support::EventCounts,
};

/// One end of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePosition {
    /// The message.
    pub id: MessageId,
    /// When it was posted.
    pub posted_at: Timestamp,
}

/// How many messages a queue holds: the unexpired ones, exactly, at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Under no live claim; delayed ones too.
    pub free: u64,
    /// Under a live claim.
    pub claimed: u64,
    /// The first message, claimed or not.
    pub oldest: Option<MessagePosition>,
    /// The last message, claimed or not.
    pub newest: Option<MessagePosition>,
    /// How many were acknowledged, deleted or popped in the last minute, as
    /// [`SlidingMinuteCounter::last_minute`](crate::support::SlidingMinuteCounter::last_minute)
    /// estimates.
    pub completed_last_minute: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Messages and other records that were removed or made ready.
    pub processed: u64,
    /// Whether work is left that could be done now.
    pub more: bool,
}

/// Life and care of the queues in a pool.
#[async_trait]
pub trait PoolMaintenance: Send + Sync {
    /// Makes the pool know a queue, empty; an open queue is not changed. A queue that was dropped
    /// stays dropped: it is not opened again in the same life, at least for some minutes, though
    /// the call succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn open_queue(&self, queue: &QueueRef) -> Result<()>;

    /// Forgets a queue with all its messages and claims, at once for every caller; the space is
    /// given back by sweeps. Dropping what is unknown succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn drop_queue(&self, queue: &QueueRef) -> Result<()>;

    /// Counts the messages of a queue, without walking them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats>;

    /// Deletes every message that was in the queue when the call began, delayed ones too, but for
    /// those under a live claim (Zaqar v2 API, purge); what the queue retains goes too. Works in
    /// bounded steps, so it is not atomic: a caller that gets an error calls again. Answers how many
    /// it deleted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64>;

    /// Does some of the work that is due at `now`: removes what expired or was dropped, frees what
    /// a lapsed claim held. One bounded step; no answer depends on it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn sweep(&self, now: Timestamp) -> Result<Swept>;

    /// What the pool did on the side.
    fn counters(&self) -> EventCounts;

    /// Answers if the store can be read and can take changes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if it cannot.
    async fn check(&self) -> Result<()>;

    /// Finishes what is under way and lets go of the store. Calls after it fail.
    async fn close(&self);
}
