use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Page, Result, StoreError,
    domain::{
        ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Sequence, Timestamp,
    },
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled},
};

#[async_trait]
impl MessageStore for ReferencePool {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>> {
        let mut state = self.state()?;
        if state.source(queue).is_some() || !state.queues.contains_key(&queue.incarnation) {
            return Err(StoreError::not_found("queue", &queue.key));
        }
        let mut posted = Vec::new();
        for new in messages {
            let deduplication = new.deduplication.clone();
            if let Some(id) = deduplication
                .as_ref()
                .and_then(|d| state.queues[&queue.incarnation].duplicate(&d.id, now))
            {
                posted.push(Posted { id, duplicate: true });
                continue;
            }
            let (visible_at, expires_at) = new.lifetime(now);
            let id =
                MessageId { incarnation: queue.incarnation, sequence: Sequence::new(0).unwrap() };
            let id = state.push(
                queue,
                Message {
                    id,
                    posted_at: now,
                    visible_at,
                    expires_at,
                    ttl: new.ttl,
                    claim: None,
                    claim_count: 0,
                    client: client.clone(),
                    ordering_key: new.ordering_key,
                    origin: None,
                    checksum: new.checksum,
                    body: new.body,
                },
                new.retained,
            );
            if let Some(d) = deduplication {
                let found = state.queues.get_mut(&queue.incarnation).unwrap();
                found.deduplication.insert(d.id, (id, now.plus(d.window)));
            }
            posted.push(Posted { id, duplicate: false });
        }
        Ok(posted)
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        self.with(queue, |queue| {
            let wanted = |message: &&Message| {
                spec.after.is_none_or(|after| message.id.sequence > after)
                    && spec.hide_client.as_ref() != Some(&message.client)
                    && match (queue.holder(message, now), message.visible_at <= now) {
                        (Some(_), _) => spec.include_claimed,
                        (None, true) => spec.include_free,
                        (None, false) => spec.include_delayed,
                    }
            };
            Page::cut(queue.unexpired(now).filter(wanted).cloned().collect(), spec.limit)
        })
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        self.with(queue, |queue| {
            ids.iter().filter_map(|id| queue.find(*id, now)).cloned().collect()
        })
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let copies = self.scheduled_copies(queue, &[id], now)?;
        let outcome = self.with(queue, |queue| {
            let Some(message) = queue.find(id, now) else { return DeleteOutcome::Missing };
            let holder = queue.holder(message, now);
            let alive = claim.is_some_and(|claim| queue.claim(claim, now).is_some());
            let refusal = match (claim, holder) {
                (None, Some(_)) => Some(DeleteRefusal::Claimed),
                (Some(_), _) if !alive => Some(DeleteRefusal::UnknownClaim),
                (Some(_), None) => Some(DeleteRefusal::NotClaimed),
                (Some(_), Some(_)) if claim != holder => Some(DeleteRefusal::ClaimedByOther),
                _ => None,
            };
            if let Some(refusal) = refusal {
                return DeleteOutcome::Refused(refusal);
            }
            queue.remove(&[id]);
            queue.completed.add(1, now);
            DeleteOutcome::Deleted
        })?;
        if outcome == DeleteOutcome::Deleted {
            self.remove_copies(&copies)?;
        }
        Ok(outcome)
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let copies = self.scheduled_copies(queue, &[id], now)?;
        let moved = self.with(queue, |queue| {
            let Some(message) =
                queue.messages.iter_mut().find(|m| m.id == id && m.expires_at > now)
            else {
                return Rescheduled::Missing;
            };
            // A claimed message is visible too.
            if message.visible_at <= now {
                return Rescheduled::Visible;
            }
            message.visible_at = visible_at.max(now);
            message.expires_at = message.visible_at.plus(message.ttl);
            Rescheduled::Moved
        })?;
        self.each_copy(&copies, |copy| {
            copy.visible_at = visible_at.max(now);
            copy.expires_at = copy.visible_at.plus(copy.ttl);
        })?;
        Ok(moved)
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let copies = self.scheduled_copies(queue, ids, now)?;
        let deleted = self.with(queue, |queue| {
            let holders: Vec<_> =
                ids.iter().filter_map(|id| queue.holder(queue.find(*id, now)?, now)).collect();
            if !claims.iter().all(|claim| holders.contains(claim)) {
                return None;
            }
            let before = queue.unexpired(now).count();
            queue.remove(ids);
            let deleted = (before - queue.unexpired(now).count()) as u64;
            queue.completed.add(deleted, now);
            Some(deleted)
        })?;
        if deleted.is_some() {
            self.remove_copies(&copies)?;
        }
        Ok(deleted)
    }
}
