use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Result,
    domain::{GroupName, Incarnation, Message, MessageId, QueueRef, Timestamp},
    pool::{Durability, MessageMark, MessagePool, PoolCounters, PoolMaintenance, Stats, Swept},
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
        let groups: Vec<_> = state.groups.extract_if(.., |place, _| own(place)).collect();
        for (_, group) in groups {
            state.drop_queue(group.reading.incarnation);
        }
        Ok(())
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        self.with(queue, |queue| {
            let mark =
                |message: &Message| MessageMark { id: message.id, posted_at: message.posted_at };
            let held = |message: &&Message| queue.holder(message, now).is_some();
            let claimed = queue.unexpired(now).filter(held).count() as u64;
            Stats {
                free: queue.unexpired(now).count() as u64 - claimed,
                claimed,
                oldest: queue.unexpired(now).next().map(mark),
                newest: queue.unexpired(now).next_back().map(mark),
            }
        })
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        self.with(queue, |queue| {
            let free = |message: &&Message| queue.holder(message, now).is_none();
            let gone: Vec<_> =
                queue.unexpired(now).filter(free).map(|message| message.id).collect();
            queue.remove(&gone);
            gone.len() as u64
        })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        const STEP: usize = 100;
        let mut state = self.state()?;
        let expired = |m: &&Message| m.expires_at <= now;
        let queues = state.queues.values();
        let due = queues.flat_map(|queue| queue.messages.iter().filter(expired));
        let mut due: Vec<_> = due.map(|message| message.id).collect();
        due.sort_unstable();
        due.dedup();
        let more = due.len() > STEP;
        due.truncate(STEP);
        // Of a message that expires in groups as well, or in groups alone, the queue is counted.
        let own = |id: &&MessageId| {
            let queue = state.queues.get(&id.incarnation);
            queue.is_some_and(|queue| queue.messages.iter().any(|message| message.id == **id))
        };
        state.counters.expired += due.iter().filter(own).count() as u64;
        for id in &due {
            for queue in state.queues.values_mut() {
                queue.remove(&[*id]);
            }
        }
        Ok(Swept { handled: due.len() as u64, more })
    }

    fn counters(&self) -> PoolCounters {
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
