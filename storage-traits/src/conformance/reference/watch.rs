use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::interval;

use super::ReferencePool;
use crate::{
    Result,
    domain::{QueueRef, Sequence, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

const POLL_INTERVAL: Duration = Duration::from_millis(2);

#[async_trait]
impl Watchable for ReferencePool {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let watch = self.1.watch(queue.incarnation, what);
        let mut previous = self.observe(queue, now)?;
        if !self.state()?.queues.contains_key(&queue.incarnation) {
            self.1.notify_all(queue.incarnation);
            return Ok(watch);
        }
        self.1.notify_claimable(queue.incarnation, usize::from(!previous.1.is_empty()));
        let (pool, queue, start) = (self.clone(), queue.clone(), Instant::now());
        tokio::spawn(async move {
            let mut ticks = interval(POLL_INTERVAL);
            while pool.1.is_watched(queue.incarnation) {
                ticks.tick().await;
                let Ok(current) = pool.observe(&queue, now.plus(start.elapsed())) else { break };
                let new =
                    current.1.iter().filter(|claimable| !previous.1.contains(claimable)).count();
                pool.1.notify_claimable(queue.incarnation, new);
                if current.0 > previous.0 {
                    pool.1.notify_posted(queue.incarnation);
                }
                if current.2 {
                    pool.1.notify_all(queue.incarnation);
                    break;
                }
                previous = current;
            }
        });
        Ok(watch)
    }
}

impl ReferencePool {
    /// Returns the last sequence of a queue, its claimable messages, and whether it was dropped.
    fn observe(&self, queue: &QueueRef, now: Timestamp) -> Result<(i64, Vec<Sequence>, bool)> {
        let dropped = self.state()?.dropped.contains(&queue.incarnation);
        self.with(queue, |queue| {
            let claimable =
                queue.claimable(now).iter().map(|message| message.id.sequence).collect();
            (queue.last_sequence, claimable, dropped)
        })
    }
}
