use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Result,
    domain::{Message, MessageId, QueueRef, Sequence, Timestamp},
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

#[async_trait]
impl DeadLetterStore for ReferencePool {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let mut state = self.state()?;
        let mut done = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        let Some(dlqs) = state.queues.get_mut(&queue.incarnation) else { return Ok(done) };
        let before = Timestamp::from_millis(dlqs.pace);
        let schedule = RedriveSchedule::new(spec.rate, before, now);
        let mut found = dlqs.free(now);
        found.retain(|message| message.origin.is_some());
        found.sort_by_key(|message| message.id);
        done.more = found.len() > spec.limit.get();
        found.truncate(spec.limit.get());
        for message in found {
            let origin = message.origin.clone().unwrap();
            let reading = match origin.group {
                None => Some(origin.queue),
                Some(name) => {
                    state.groups.get(&(origin.queue, name)).map(|group| group.as_queue.incarnation)
                }
            };
            let reading = reading.filter(|reading| state.queues.contains_key(reading));
            let dlqs = state.queues.get_mut(&queue.incarnation).unwrap();
            let Some(reading) = reading else {
                let all = dlqs.messages.iter_mut();
                all.filter(|m| m.id == message.id).for_each(|m| m.origin = None);
                done.orphaned += 1;
                continue;
            };
            dlqs.remove(&[message.id]);
            let source = state.queues.get_mut(&origin.queue).unwrap();
            source.posted += 1;
            let (posted, visible_at) = (source.posted, schedule.visible_at(done.moved));
            let id =
                MessageId { incarnation: origin.queue, sequence: Sequence::new(posted).unwrap() };
            let (expires_at, ttl) = (visible_at.plus(origin.ttl), origin.ttl);
            let moved = Message { id, posted_at: now, visible_at, expires_at, ttl, ..message };
            let moved = Message { claim: None, claim_count: 0, origin: None, ..moved };
            let home = state.queues.get_mut(&reading).unwrap();
            home.posted = posted;
            home.messages.push(moved);
            done.moved += 1;
            done.last_visible_at = visible_at;
        }
        let next = schedule.next_free(done.moved, before);
        state.queues.get_mut(&queue.incarnation).unwrap().pace = next.as_millis();
        Ok(done)
    }
}
