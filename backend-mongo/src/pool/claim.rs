//! Claims and pops.

use async_trait::async_trait;
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message, QueueRef,
        Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    MongoPool,
    acknowledge::Acknowledge,
    bodies::{Completion, Final, MessageWithoutBody, Reply},
    bucket::MessageLocation,
    claim_source::ClaimSource,
    claim_state::{claimed_messages, live_claim, requeue, set_claimed},
    letters::DeadLetterMove,
    operation::Operation,
    side_documents::{ClaimRecord, ttl_after},
    stored_message::{State, seconds, whole_seconds},
    unit_of_work::{MAX_UNIT_MESSAGES, Progress, UnitOfWork},
};
use crate::error::unexpected;

#[async_trait]
impl ClaimStore for MongoPool {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(None) };
        let mut spec = spec.clone();
        let own = [queue_id, queue.incarnation.get()];
        spec.dead_letter =
            spec.dead_letter.filter(|rule| !own.contains(&rule.queue.incarnation.get()));
        if let Some(rule) = &spec.dead_letter
            && !self.0.is_open(&rule.queue).await?
        {
            return Err(StoreError::not_found("queue", &rule.queue.key));
        }
        let group_id = queue.incarnation.get();
        loop {
            let create = Create { group_id, spec: spec.clone(), now };
            let ClaimAttempt { claim, has_transfers, again } = self.0.run(queue_id, create).await?;
            if has_transfers && let Err(error) = self.deliver_transfers(queue_id).await {
                // The claim is committed; the next claim or the sweep delivers the dead letters.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    queue.id = queue_id,
                    "cannot deliver dead letters; will retry"
                );
                return Ok(claim);
            }
            if !again {
                return Ok(claim);
            }
        }
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(None) };
        self.0.run(queue_id, Get { group_id: queue.incarnation.get(), id, now }).await
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            return Err(StoreError::not_found("claim", &id));
        };
        self.0.run(queue_id, Renew { group_id: queue.incarnation.get(), id, terms, now }).await
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(()) };
        self.0.run(queue_id, Release { group_id: queue.incarnation.get(), id, now }).await
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            return Ok(vec![AckResult::NotHeld; acknowledgements.len()]);
        };
        let acknowledgements = acknowledgements.to_vec();
        let group_id = queue.incarnation.get();
        self.0.run(queue_id, Acknowledge { group_id, id, acknowledgements, now }).await
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(Vec::new()) };
        self.0.run(queue_id, Pop { group_id: queue.incarnation.get(), limit, now }).await
    }
}

struct Create {
    group_id: i64,
    spec: ClaimSpec,
    now: Timestamp,
}

/// The result of an attempt to claim. `C` is the claim with or without bodies.
struct ClaimAttempt<C> {
    claim: Option<C>,
    /// Whether the queue has transfers to deliver.
    has_transfers: bool,
    /// Whether the attempt moved so many dead letters that it reached no other message.
    again: bool,
}

/// A claim whose messages have no bodies yet.
struct ClaimWithoutBodies {
    id: ClaimId,
    renewed_at: Timestamp,
    ttl: std::time::Duration,
    messages: Vec<MessageWithoutBody>,
}

impl Reply for ClaimWithoutBodies {
    type Complete = Claim;

    fn complete(self, commit: &Completion<'_>) -> Result<Claim> {
        let Self { id, renewed_at, ttl, messages } = self;
        Ok(Claim { id, renewed_at, ttl, messages: messages.complete(commit)? })
    }
}

impl Reply for ClaimAttempt<ClaimWithoutBodies> {
    type Complete = ClaimAttempt<Claim>;

    fn complete(self, commit: &Completion<'_>) -> Result<ClaimAttempt<Claim>> {
        let Self { claim, has_transfers, again } = self;
        Ok(ClaimAttempt { claim: claim.complete(commit)?, has_transfers, again })
    }
}

#[async_trait]
impl Operation for Create {
    type Reply = ClaimAttempt<ClaimWithoutBodies>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, spec, now } = self;
        let (group_id, now) = (*group_id, *now);
        if !unit.has_group(group_id) {
            let nothing = ClaimAttempt { claim: None, has_transfers: false, again: false };
            return Ok(Progress::Done(nothing));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let mut dead_letters =
            spec.dead_letter.as_ref().map(|rule| DeadLetterMove::new(group_id, rule, now));
        let mut claimed: Vec<MessageLocation> = Vec::new();
        let mut skip_unkeyed = false;
        let mut moved = 0;
        while claimed.len() < spec.limit.get() {
            let Some(source) = unit.next_source(group_id, skip_unkeyed).await? else { break };
            let limit = spec.limit.get() - claimed.len();
            let Some(ready) = ready_messages(unit, group_id, &source, limit).await? else { break };
            skip_unkeyed |= matches!(source, ClaimSource::Unkeyed);
            let before = claimed.len();
            for at in ready {
                let count = unit.stored(at)?.claim_count;
                match &mut dead_letters {
                    Some(dead_letters) if count >= dead_letters.max_claim_count() => {
                        dead_letters.move_message(unit, at).await?;
                        moved += 1;
                    }
                    _ => {
                        claim_message(unit, at, spec, now)?;
                        claimed.push(at);
                    }
                }
            }
            unit.finish_source(group_id, &source, claimed.len() - before, now).await?;
            if moved >= MAX_UNIT_MESSAGES {
                break;
            }
        }
        if let Some(dead_letters) = dead_letters {
            dead_letters.finish(unit).await?;
        }
        let has_transfers = !unit.document()?.outgoing_transfers.is_empty();
        let again = claimed.is_empty() && moved >= MAX_UNIT_MESSAGES;
        let claim = if claimed.is_empty() {
            None
        } else {
            Some(store_claim(unit, group_id, spec, &mut claimed, now)?)
        };
        Ok(Progress::Done(ClaimAttempt { claim, has_transfers, again }))
    }
}

/// Returns the first ready messages of a source; `None` if they are not readable yet.
async fn ready_messages(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    source: &ClaimSource,
    limit: usize,
) -> Result<Option<Vec<MessageLocation>>> {
    let ready = unit.first_ready_of(group_id, source, limit).await?;
    if !ready.is_empty() {
        return Ok(Some(ready));
    }
    // The counters say that the source has messages. Those may be in buckets that are not found
    // yet.
    if unit.first_missing.is_some() {
        return Ok(None);
    }
    Err(unexpected("the queue's counters are wrong"))
}

/// Records a new claim, and returns it.
fn store_claim(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    spec: &ClaimSpec,
    claimed: &mut [MessageLocation],
    now: Timestamp,
) -> Result<ClaimWithoutBodies> {
    claimed.sort_by_key(|at| at.sequence);
    let expires_at = now.plus(spec.terms.ttl).as_millis();
    let claim = ClaimRecord {
        id: ClaimRecord::document_id(group_id, spec.id),
        queue_id: unit.queue_id,
        renewed_at: now.as_millis(),
        ttl: whole_seconds(spec.terms.ttl),
        expires_at,
        sequences: claimed.iter().map(|at| at.sequence).collect(),
        applied_revision: 0,
        garbage_at: ttl_after(expires_at),
    };
    unit.cache.claims.insert((group_id, spec.id.to_bytes()), Some(claim.clone()));
    unit.new_claims.push(claim);
    let messages = claimed.iter().map(|at| unit.message_for_caller(*at)).collect::<Result<_>>()?;
    Ok(ClaimWithoutBodies { id: spec.id, renewed_at: now, ttl: spec.terms.ttl, messages })
}

/// Claims a ready message.
fn claim_message(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
    spec: &ClaimSpec,
    now: Timestamp,
) -> Result<()> {
    let was_unkeyed = unit.stored(at)?.state == State::Ready;
    let message = unit.change(at, |message| {
        set_claimed(message, spec.id, spec.terms, now);
        message.claim_count = message.claim_count.saturating_add(1);
    })?;
    unit.record_due(at.group_id, message.next_transition());
    let group = unit.group(at.group_id)?;
    group.claimed += 1;
    group.ready -= i64::from(was_unkeyed);
    Ok(())
}

struct Get {
    group_id: i64,
    id: ClaimId,
    now: Timestamp,
}

#[async_trait]
impl Operation for Get {
    type Reply = Option<ClaimWithoutBodies>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, now } = *self;
        let Some(claim) = live_claim(unit, group_id, id, now).await? else {
            return Ok(Progress::Done(None));
        };
        let held = claimed_messages(unit, group_id, id, &claim, now).await?;
        let messages = held.iter().map(|at| unit.message_for_caller(*at)).collect::<Result<_>>()?;
        let renewed_at = Timestamp::from_millis(claim.renewed_at);
        let ttl = seconds(claim.ttl);
        Ok(Progress::Done(Some(ClaimWithoutBodies { id, renewed_at, ttl, messages })))
    }
}

struct Renew {
    group_id: i64,
    id: ClaimId,
    terms: ClaimTerms,
    now: Timestamp,
}

#[async_trait]
impl Operation for Renew {
    type Reply = Final<()>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, terms, now } = *self;
        let Some(mut claim) = live_claim(unit, group_id, id, now).await? else {
            return Err(StoreError::not_found("claim", &id));
        };
        for at in claimed_messages(unit, group_id, id, &claim, now).await? {
            let message = unit.change(at, |message| set_claimed(message, id, terms, now))?;
            unit.record_due(group_id, message.next_transition());
        }
        claim.renewed_at = now.as_millis();
        claim.ttl = whole_seconds(terms.ttl);
        claim.expires_at = now.plus(terms.ttl).as_millis();
        claim.garbage_at = ttl_after(claim.expires_at);
        unit.change_claim(group_id, id, claim);
        Ok(Progress::done(()))
    }
}

struct Release {
    group_id: i64,
    id: ClaimId,
    now: Timestamp,
}

#[async_trait]
impl Operation for Release {
    type Reply = Final<()>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, now } = *self;
        let Some(mut claim) = live_claim(unit, group_id, id, now).await? else {
            return Ok(Progress::done(()));
        };
        for at in claimed_messages(unit, group_id, id, &claim, now).await? {
            requeue(unit, at, now, now).await?;
        }
        claim.expires_at = i64::MIN;
        unit.change_claim(group_id, id, claim);
        Ok(Progress::done(()))
    }
}

struct Pop {
    group_id: i64,
    limit: Limit,
    now: Timestamp,
}

#[async_trait]
impl Operation for Pop {
    type Reply = Vec<MessageWithoutBody>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, limit, now } = *self;
        if !unit.has_group(group_id) {
            return Ok(Progress::Done(Vec::new()));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let mut popped: Vec<MessageWithoutBody> = Vec::new();
        let mut skip_unkeyed = false;
        while popped.len() < limit.get() {
            let Some(source) = unit.next_source(group_id, skip_unkeyed).await? else { break };
            let limit = limit.get() - popped.len();
            let Some(ready) = ready_messages(unit, group_id, &source, limit).await? else { break };
            skip_unkeyed |= matches!(source, ClaimSource::Unkeyed);
            unit.read_bodies_before_commit = true;
            for at in &ready {
                popped.push(unit.message_for_caller(*at)?);
                unit.remove_message(*at, now).await?;
            }
            unit.group(group_id)?.add_completed(ready.len(), now);
            match &source {
                ClaimSource::Key { key, .. } => unit.rotate_to_back(group_id, key).await?,
                ClaimSource::Unkeyed => unit.finish_source(group_id, &source, 0, now).await?,
            }
        }
        popped.sort_by_key(MessageWithoutBody::id);
        Ok(Progress::Done(popped))
    }
}
