use async_trait::async_trait;

use super::{ClaimState, Queue, ReferencePool};
use crate::{
    Limit, Result, StoreError,
    domain::{
        AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Incarnation,
        Message, QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

#[async_trait]
impl ClaimStore for ReferencePool {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let mut state = self.state()?;
        if !state.queues.contains_key(&queue.incarnation) {
            return Ok(None);
        }
        let is_source =
            |of: Incarnation| of == queue.incarnation || state.source(queue) == Some(of);
        let rule = spec.dead_letter.as_ref().filter(|rule| !is_source(rule.queue.incarnation));
        if let Some(rule) = rule.filter(|rule| !state.queues.contains_key(&rule.queue.incarnation))
        {
            return Err(StoreError::not_found("queue", &rule.queue.key));
        }
        let source = state.queues.get_mut(&queue.incarnation).unwrap();
        let (mut claimed, mut served, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for message in source.claimable(now) {
            if claimed.len() == spec.limit.get() {
                break;
            }
            match rule {
                Some(rule) if message.claim_count >= rule.max_claim_count => {
                    dead.push((rule, message));
                }
                _ => {
                    claimed.push(message.id);
                    served.push(message);
                }
            }
        }
        source.rotate_to_back(&served);
        for (rule, message) in dead {
            let (old, ttl) = (message.id, rule.ttl.unwrap_or(message.ttl));
            let (visible_at, expires_at) = (now, now.plus(ttl));
            let origin = Some(state.origin(queue, message.ttl));
            let moved = Message { posted_at: now, visible_at, expires_at, ttl, ..message };
            let moved = Message { claim: None, claim_count: 0, origin, ..moved };
            state.push(&rule.queue, moved, rule.retained);
            state.queues.get_mut(&queue.incarnation).unwrap().remove(&[old]);
            state.counters.dead_lettered += 1;
        }
        if claimed.is_empty() {
            return Ok(None);
        }
        let source = state.queues.get_mut(&queue.incarnation).unwrap();
        for message in source.messages.iter_mut().filter(|message| claimed.contains(&message.id)) {
            message.claim = Some(spec.id);
            message.claim_count += 1;
        }
        source.extend(spec.id, spec.terms, now);
        let (id, ttl) = (spec.id, spec.terms.ttl);
        source.claims.push(ClaimState { id, renewed_at: now, ttl });
        Ok(Some(Claim { id, renewed_at: now, ttl, messages: source.held_by(id) }))
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        self.with(queue, |queue| {
            let messages = queue.held_by(id);
            let held = queue.claim(id, now)?;
            Some(Claim { id, renewed_at: held.renewed_at, ttl: held.ttl, messages })
        })
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        self.with(queue, |queue| {
            let held = queue.claim(id, now).ok_or_else(|| StoreError::not_found("claim", &id))?;
            (held.renewed_at, held.ttl) = (now, terms.ttl);
            queue.extend(id, terms, now);
            Ok(())
        })?
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        self.with(queue, |queue| {
            if queue.claim(id, now).is_some() {
                queue.claims.retain(|held| held.id != id);
                let own = queue.messages.iter_mut().filter(|message| message.claim == Some(id));
                own.for_each(|message| message.claim = None);
            }
        })
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let one = |queue: &mut Queue, acknowledgement: &Acknowledgement| {
            let held = queue.find(acknowledgement.id, now).and_then(|m| queue.holder(m, now));
            if held != Some(id) {
                return AckResult::NotHeld;
            }
            match acknowledgement.outcome {
                AckOutcome::Ack => {
                    queue.remove(&[acknowledgement.id]);
                    queue.completed.add(1, now);
                }
                AckOutcome::Nack { delay } => {
                    let message =
                        queue.messages.iter_mut().find(|m| m.id == acknowledgement.id).unwrap();
                    message.claim = None;
                    if !delay.is_zero() {
                        message.visible_at = now.plus(delay);
                    }
                }
            }
            AckResult::Applied
        };
        self.with(queue, |queue| {
            acknowledgements.iter().map(|acknowledgement| one(queue, acknowledgement)).collect()
        })
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        self.with(queue, |queue| {
            let mut popped = queue.claimable(now);
            popped.truncate(limit.get());
            queue.rotate_to_back(&popped);
            popped.sort_by_key(|message| message.id);
            queue.remove(&popped.iter().map(|message| message.id).collect::<Vec<_>>());
            queue.completed.add(popped.len() as u64, now);
            popped
        })
    }
}
