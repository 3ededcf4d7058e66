use async_trait::async_trait;

use super::ReferencePool;
use crate::{
    Page, Result, StoreError,
    domain::{ClaimId, ClientId, Message, MessageId, NewMessage, QueueRef, Sequence, Timestamp},
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore},
};

#[async_trait]
impl MessageStore for ReferencePool {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<MessageId>> {
        let mut state = self.state()?;
        let unknown = || StoreError::not_found("queue", &queue.key);
        let found = state.queues.get_mut(&queue.incarnation).ok_or_else(unknown)?;
        let store = |new: NewMessage| Message {
            id: MessageId { incarnation: queue.incarnation, sequence: Sequence::new(0).unwrap() },
            posted_at: now,
            visible_at: now.plus(new.delay),
            expires_at: now.plus(new.ttl),
            ttl: new.ttl,
            claim: None,
            claim_count: 0,
            client: client.clone(),
            checksum: new.checksum,
            body: new.body,
        };
        Ok(messages.into_iter().map(|new| found.push(queue, store(new))).collect())
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
                    && (spec.include_claimed || queue.holder(message, now).is_none())
                    && (spec.include_delayed || message.visible_at <= now)
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
        self.with(queue, |queue| {
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
            DeleteOutcome::Deleted
        })
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        self.with(queue, |queue| {
            let holders: Vec<_> =
                ids.iter().filter_map(|id| queue.holder(queue.find(*id, now)?, now)).collect();
            if !claims.iter().all(|claim| holders.contains(claim)) {
                return None;
            }
            let before = queue.unexpired(now).count();
            queue.remove(ids);
            Some((before - queue.unexpired(now).count()) as u64)
        })
    }
}
