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
        let Some(dlq) = state.queues.get_mut(&queue.incarnation) else { return Ok(done) };
        let before = Timestamp::from_millis(dlq.redrive_next_free);
        let schedule = RedriveSchedule::new(spec.rate, before, now);
        let mut dead_letters = dlq.claimable(now);
        dead_letters.retain(|message| message.origin.is_some());
        dead_letters.sort_by_key(|message| message.id);
        done.more = dead_letters.len() > spec.limit.get();
        dead_letters.truncate(spec.limit.get());
        for message in dead_letters {
            let origin = message.origin.clone().unwrap();
            let source_incarnation = match origin.group {
                None => Some(origin.queue),
                Some(name) => {
                    state.groups.get(&(origin.queue, name)).map(|group| group.as_queue.incarnation)
                }
            };
            let source_incarnation = source_incarnation
                .filter(|source_incarnation| state.queues.contains_key(source_incarnation));
            let dlq = state.queues.get_mut(&queue.incarnation).unwrap();
            let Some(source_incarnation) = source_incarnation else {
                let all = dlq.messages.iter_mut();
                all.filter(|m| m.id == message.id).for_each(|m| m.origin = None);
                done.orphaned += 1;
                continue;
            };
            dlq.remove(&[message.id]);
            let source = state.queues.get_mut(&origin.queue).unwrap();
            source.last_sequence += 1;
            let (sequence, visible_at) = (source.last_sequence, schedule.visible_at(done.moved));
            let id =
                MessageId { incarnation: origin.queue, sequence: Sequence::new(sequence).unwrap() };
            let (expires_at, ttl) = (visible_at.plus(origin.ttl), origin.ttl);
            let moved = Message { id, posted_at: now, visible_at, expires_at, ttl, ..message };
            let moved = Message { claim: None, claim_count: 0, origin: None, ..moved };
            let destination = state.queues.get_mut(&source_incarnation).unwrap();
            destination.last_sequence = sequence;
            destination.messages.push(moved);
            done.moved += 1;
            done.last_visible_at = visible_at;
        }
        let next = schedule.next_free(done.moved, before);
        state.queues.get_mut(&queue.incarnation).unwrap().redrive_next_free = next.as_millis();
        Ok(done)
    }
}
