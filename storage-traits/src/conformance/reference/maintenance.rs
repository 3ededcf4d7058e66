use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Result,
    domain::{GroupName, Incarnation, Message, QueueRef, Timestamp},
    pool::{Durability, EventCounts, MessagePool, MessagePosition, PoolMaintenance, Stats, Swept},
};

#[async_trait]
impl PoolMaintenance for ReferencePool {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let mut state = self.state()?;
        if !state.dropped.contains(&queue.incarnation) {
            state.queues.entry(queue.incarnation).or_default();
        }
        Ok(())
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let mut state = self.state()?;
        state.drop_queue(queue.incarnation);
        let own = |(of, _): &(Incarnation, GroupName)| *of == queue.incarnation;
        let groups: Vec<_> = state.groups.extract_if(.., |key, _| own(key)).collect();
        for (_, group) in groups {
            state.drop_queue(group.as_queue.incarnation);
        }
        Ok(())
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        self.with(queue, |queue| {
            let position = |message: &Message| MessagePosition {
                id: message.id,
                posted_at: message.posted_at,
            };
            let held = |message: &&Message| queue.holder(message, now).is_some();
            let claimed = queue.unexpired(now).filter(held).count() as u64;
            Stats {
                free: queue.unexpired(now).count() as u64 - claimed,
                claimed,
                oldest: queue.unexpired(now).next().map(position),
                newest: queue.unexpired(now).next_back().map(position),
                completed_last_minute: queue.completed.last_minute(now),
            }
        })
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        self.state()?.retained.remove(&queue.incarnation);
        self.with(queue, |queue| {
            let unclaimed = |message: &&Message| queue.holder(message, now).is_none();
            let deleted: Vec<_> =
                queue.unexpired(now).filter(unclaimed).map(|message| message.id).collect();
            queue.remove(&deleted);
            deleted.len() as u64
        })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        const STEP: usize = 100;
        let mut state = self.state()?;
        let expired = |m: &&Message| m.expires_at <= now;
        let all = state.queues.iter();
        let mut due: Vec<_> = all
            .flat_map(|(of, queue)| queue.messages.iter().filter(expired).map(|m| (*of, m.id)))
            .collect();
        let more = due.len() > STEP;
        due.truncate(STEP);
        for (of, id) in &due {
            // A message that expires in groups too is counted once, for the queue.
            state.counters.expired += u64::from(*of == id.incarnation);
            state.queues.get_mut(of).unwrap().remove(&[*id]);
        }
        for log in state.retained.values_mut() {
            log.retain(|message| message.expires_at > now);
        }
        Ok(Swept { processed: due.len() as u64, more })
    }

    fn counters(&self) -> EventCounts {
        self.0.lock().unwrap().counters
    }

    async fn check(&self) -> Result<()> {
        self.state().map(drop)
    }

    async fn close(&self) {
        self.0.lock().unwrap().closed = true;
    }
}

impl MessagePool for ReferencePool {
    fn durability(&self) -> Durability {
        Durability::Memory
    }
}
