use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Result,
    domain::{Message, MessageId, QueueRef, Sequence, Timestamp},
    pool::{DeadLetterStore, Pace, RedriveSpec, Redriven},
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
        let mut done = Redriven { moved: 0, stranded: 0, more: false, until: now };
        let Some(graves) = state.queues.get_mut(&queue.incarnation) else { return Ok(done) };
        let before = Timestamp::from_millis(graves.pace);
        let pace = Pace::new(spec.rate, before, now);
        let mut found = graves.free(now);
        found.retain(|message| message.origin.is_some());
        found.sort_by_key(|message| message.id);
        done.more = found.len() > spec.limit.get();
        found.truncate(spec.limit.get());
        for message in found {
            let origin = message.origin.clone().unwrap();
            let reading = match origin.group {
                None => Some(origin.queue),
                Some(name) => {
                    state.groups.get(&(origin.queue, name)).map(|group| group.reading.incarnation)
                }
            };
            let reading = reading.filter(|reading| state.queues.contains_key(reading));
            let graves = state.queues.get_mut(&queue.incarnation).unwrap();
            let Some(reading) = reading else {
                let all = graves.messages.iter_mut();
                all.filter(|m| m.id == message.id).for_each(|m| m.origin = None);
                done.stranded += 1;
                continue;
            };
            graves.remove(&[message.id]);
            let source = state.queues.get_mut(&origin.queue).unwrap();
            source.posted += 1;
            let (posted, visible_at) = (source.posted, pace.moment(done.moved));
            let id =
                MessageId { incarnation: origin.queue, sequence: Sequence::new(posted).unwrap() };
            let (expires_at, ttl) = (visible_at.plus(origin.ttl), origin.ttl);
            let moved = Message { id, posted_at: now, visible_at, expires_at, ttl, ..message };
            let moved = Message { claim: None, claim_count: 0, origin: None, ..moved };
            let home = state.queues.get_mut(&reading).unwrap();
            home.posted = posted;
            home.messages.push(moved);
            done.moved += 1;
            done.until = visible_at;
        }
        let next = pace.next(done.moved, before);
        state.queues.get_mut(&queue.incarnation).unwrap().pace = next.as_millis();
        Ok(done)
    }
}
