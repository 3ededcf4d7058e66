use async_trait::async_trait;

use crate::{
    Result,
    domain::{QueueRef, Timestamp},
    support::{Watch, WatchFor},
};

/// Lets a consumer wait for a queue without polling it.
#[async_trait]
pub trait Watchable: Send + Sync {
    /// Adds a watch on a queue. It reports every event from then on, so a consumer that looks *after*
    /// this call, finds nothing and waits, misses nothing. A watch on a queue that the pool does not
    /// know is woken at once; one on a queue that is dropped is woken when that happens, so that the
    /// consumer reads the catalog again.
    ///
    /// While nothing happens, a watched queue costs the store at most one query a second.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch>;
}
