use async_trait::async_trait;

use crate::{
    Result,
    domain::{MessageId, QueueRef, Timestamp},
    support::EventCounts,
};

/// First or last message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePosition {
    /// Id of the message.
    pub id: MessageId,
    /// Time at which it was posted.
    pub posted_at: Timestamp,
}

/// Exact counts of the messages in a queue or group that have not expired at the time of the call
/// (Zaqar v2 API, queue stats). The total is `free + claimed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Number of ready and delayed messages.
    pub free: u64,
    /// Number of claimed messages.
    pub claimed: u64,
    /// First message in the order of the queue, in any state.
    pub oldest: Option<MessagePosition>,
    /// Last message in the order of the queue, in any state.
    pub newest: Option<MessagePosition>,
    /// Number of messages that were acknowledged, deleted or popped in the last 60 seconds, as
    /// [`SlidingMinuteCounter::last_minute`](crate::support::SlidingMinuteCounter::last_minute)
    /// estimates it.
    pub completed_last_minute: u64,
}

/// Result of one sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Number of messages and other records that were removed or made ready.
    pub processed: u64,
    /// Whether more work is due now.
    pub more: bool,
}

/// Queue lifecycle and maintenance.
#[async_trait]
pub trait PoolMaintenance: Send + Sync {
    /// Opens an empty queue. Idempotent: a queue that is open is not changed.
    ///
    /// An incarnation that was dropped stays dropped, for at least some minutes (a tombstone
    /// prevents that a late call reopens it); opening it succeeds without an effect.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn open_queue(&self, queue: &QueueRef) -> Result<()>;

    /// Removes a queue with all its messages, claims and groups, at once for every caller. Sweeps
    /// free the space later, in bounded steps. Idempotent: succeeds if the queue is unknown.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn drop_queue(&self, queue: &QueueRef) -> Result<()>;

    /// Returns the counts of a queue or group. The cost does not depend on the number of messages.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats>;

    /// Deletes the ready and the delayed messages that a queue or group had when the call began,
    /// and returns their number (Zaqar v2 API, purge). Claimed messages stay.
    ///
    /// A purge of a queue also deletes the messages that it retains, but not those of its groups.
    /// Works in bounded steps, so it is not atomic: after an error the caller calls again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64>;

    /// Does one bounded step of the work that is due at `now`: removes expired messages and the
    /// data of dropped queues, and makes the messages of expired claims ready. The result of no
    /// other method depends on it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn sweep(&self, now: Timestamp) -> Result<Swept>;

    /// Returns the counts of expired and dead-lettered messages since this pool object was opened.
    fn counters(&self) -> EventCounts;

    /// Checks that the store can be read and accepts writes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if it cannot.
    async fn check(&self) -> Result<()>;

    /// Waits for calls in progress and closes the connections to the store. Later calls return
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable).
    async fn close(&self);
}
