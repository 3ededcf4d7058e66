//! Watches: waiting until a queue or group has something.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

use super::redis_pool::Redis;

#[async_trait]
impl Watchable for Redis {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        self.watches.watch(queue.incarnation, what, now).await
    }
}
