use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::interval;

use super::ReferencePool;
use crate::{
    Result,
    domain::{QueueRef, Sequence, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

const LOOK_EVERY: Duration = Duration::from_millis(2);

#[async_trait]
impl Watchable for ReferencePool {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let watch = self.1.watch(queue.incarnation, what);
        let mut before = self.look(queue, now)?;
        if !self.state()?.queues.contains_key(&queue.incarnation) {
            self.1.notify_all(queue.incarnation);
            return Ok(watch);
        }
        self.1.notify_claimable(queue.incarnation, usize::from(!before.1.is_empty()));
        let (pool, queue, start) = (self.clone(), queue.clone(), Instant::now());
        tokio::spawn(async move {
            let mut looks = interval(LOOK_EVERY);
            while pool.1.is_watched(queue.incarnation) {
                looks.tick().await;
                let Ok(seen) = pool.look(&queue, now.plus(start.elapsed())) else { break };
                let fresh = seen.1.iter().filter(|free| !before.1.contains(free)).count();
                pool.1.notify_claimable(queue.incarnation, fresh);
                if seen.0 > before.0 {
                    pool.1.notify_posted(queue.incarnation);
                }
                if seen.2 {
                    pool.1.notify_all(queue.incarnation);
                    break;
                }
                before = seen;
            }
        });
        Ok(watch)
    }
}

impl ReferencePool {
    /// How much was posted to a queue, what can be claimed, and whether the queue is dropped.
    fn look(&self, queue: &QueueRef, now: Timestamp) -> Result<(i64, Vec<Sequence>, bool)> {
        let dropped = self.state()?.dropped.contains(&queue.incarnation);
        self.with(queue, |queue| {
            let free = queue.free(now).iter().map(|message| message.id.sequence).collect();
            (queue.posted, free, dropped)
        })
    }
}
