use async_trait::async_trait;

use crate::{
    Result,
    domain::{QueueRef, Timestamp},
    support::{Watch, WatchFor},
};

/// Watches, by which a consumer waits for the messages of a queue without polling.
#[async_trait]
pub trait Watchable: Send + Sync {
    /// Adds a watch on a queue or group. The watch ends when it is dropped.
    ///
    /// The watch reports every event from this call on. So a consumer that first adds the watch,
    /// then finds no message, and then waits, misses no message. A watch on a queue that the pool
    /// does not know is woken at once. A watch is woken when its queue is dropped, so that the
    /// consumer reads the catalog again.
    ///
    /// A watched queue without events costs the store at most one query a second.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch>;
}
