//! Watches of queues and groups.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

use super::{MongoPool, watch_tasks::observe};

#[async_trait]
impl Watchable for MongoPool {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let watches = &self.0.events.watches;
        let watch = watches.registry().watch(queue.incarnation, what);
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            watches.registry().notify_all(queue.incarnation);
            return Ok(watch);
        };
        watches.track(queue.incarnation, now, || queue_id);
        observe(&self.0, queue_id, queue.incarnation.get(), now).await?;
        Ok(watch)
    }
}
