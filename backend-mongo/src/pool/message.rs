//! Posts, lists, reads, deletes and reschedules messages.

use async_trait::async_trait;
use storage_traits::{
    Page, Result, StoreError,
    domain::{
        ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Sequence, Timestamp,
    },
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled},
};

use super::{
    MongoPool,
    append::Append,
    bodies::{Final, MessageWithoutBody},
    bucket::MessageLocation,
    claim_state::live_claim,
    loading::Scan,
    operation::Operation,
    posts::is_plain,
    stored_message::{State, StoredMessage},
    unit_of_work::{Progress, UnitOfWork},
};

/// How many buckets a list loads first, and at most; the number doubles with each page of buckets.
const PAGE_BUCKETS: usize = 4;
const MAX_PAGE_BUCKETS: usize = 64;

#[async_trait]
impl MessageStore for MongoPool {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>> {
        let missing = || StoreError::not_found("queue", &queue.key);
        let queue_id = queue.incarnation.get();
        let posted = if is_plain(&messages) {
            self.0.store_posts(queue_id, client, messages, now).await?
        } else {
            self.0.run(queue_id, Append { client: client.clone(), messages, now }).await?
        };
        posted.ok_or_else(missing)
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(Page::empty()) };
        self.0
            .run(queue_id, List { group_id: queue.incarnation.get(), spec: spec.clone(), now })
            .await
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(Vec::new()) };
        self.0
            .run(queue_id, Get { group_id: queue.incarnation.get(), ids: ids.to_vec(), now })
            .await
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            return Ok(DeleteOutcome::Missing);
        };
        self.0.run(queue_id, Delete { group_id: queue.incarnation.get(), id, claim, now }).await
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            return Ok(Rescheduled::Missing);
        };
        self.0
            .run(queue_id, Reschedule { group_id: queue.incarnation.get(), id, visible_at, now })
            .await
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else {
            return Ok(claims.is_empty().then_some(0));
        };
        let (ids, claims) = (ids.to_vec(), claims.to_vec());
        self.0
            .run(queue_id, DeleteMany { group_id: queue.incarnation.get(), ids, claims, now })
            .await
    }
}

struct List {
    group_id: i64,
    spec: ListSpec,
    now: Timestamp,
}

impl List {
    fn includes(&self, message: &StoredMessage) -> bool {
        let wanted = match message.state {
            State::Ready | State::ReadyKeyed => self.spec.include_free,
            State::Delayed => self.spec.include_delayed,
            State::Claimed => self.spec.include_claimed,
            State::Retained => false,
        };
        let hides =
            self.spec.hide_client.as_ref().is_some_and(|own| own.as_str() == message.client);
        wanted && !hides
    }
}

#[async_trait]
impl Operation for List {
    type Reply = Page<MessageWithoutBody>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, spec, now } = self;
        let (group_id, now) = (*group_id, *now);
        if !unit.has_group(group_id) {
            return Ok(Progress::Done(Page::empty()));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let scan = if spec.include_claimed { Scan::All } else { Scan::Unclaimed };
        // A list ends before a bucket that is not found yet: a reader that continued after it would
        // miss its messages.
        let end = unit.readable_end();
        let mut after = spec.after.map_or(0, Sequence::get);
        let (mut found, mut buckets): (Vec<MessageLocation>, usize) = (Vec::new(), PAGE_BUCKETS);
        while found.len() <= spec.limit.get() && after < end {
            let known = unit.load_after(group_id, after, scan, buckets).await?.min(end);
            buckets = MAX_PAGE_BUCKETS.min(buckets * 2);
            for bucket in unit.cache.buckets_after(group_id, after) {
                if bucket.first > known {
                    break;
                }
                let shown = bucket.messages.iter().filter(|(_, message)| self.includes(message));
                let shown = shown.map(|(offset, _)| bucket.location(*offset));
                found.extend(shown.filter(|it| it.sequence > after && it.sequence <= known));
            }
            after = known;
        }
        let page = Page::cut(found, spec.limit);
        let items =
            page.items.iter().map(|at| unit.message_for_caller(*at)).collect::<Result<_>>()?;
        Ok(Progress::Done(Page { items, more: page.more }))
    }
}

struct Get {
    group_id: i64,
    ids: Vec<MessageId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for Get {
    type Reply = Vec<MessageWithoutBody>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        if !unit.has_group(self.group_id) {
            return Ok(Progress::Done(Vec::new()));
        }
        let own = unit.own_sequences(&self.ids);
        let found = unit.find(self.group_id, &own, self.now).await?;
        let messages =
            found.iter().map(|at| unit.message_for_caller(*at)).collect::<Result<_>>()?;
        Ok(Progress::Done(messages))
    }
}

struct Delete {
    group_id: i64,
    id: MessageId,
    claim: Option<ClaimId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for Delete {
    type Reply = Final<DeleteOutcome>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, claim, now } = *self;
        let missing = Ok(Progress::done(DeleteOutcome::Missing));
        if !unit.has_group(group_id) {
            return missing;
        }
        let own = unit.own_sequences(&[id]);
        let Some(at) = unit.find(group_id, &own, now).await?.pop() else { return missing };
        let holder = unit.stored(at)?.holder(now);
        let refusal = match (claim, holder) {
            (None, None) => None,
            (None, Some(_)) => Some(DeleteRefusal::Claimed),
            (Some(claim), _) if live_claim(unit, group_id, claim, now).await?.is_none() => {
                Some(DeleteRefusal::UnknownClaim)
            }
            (Some(_), None) => Some(DeleteRefusal::NotClaimed),
            (Some(claim), Some(holder)) => {
                (claim != holder).then_some(DeleteRefusal::ClaimedByOther)
            }
        };
        if let Some(refusal) = refusal {
            return Ok(Progress::done(DeleteOutcome::Refused(refusal)));
        }
        remove_with_unseen_copies(unit, at, now).await?;
        unit.group(group_id)?.add_completed(1, now);
        Ok(Progress::done(DeleteOutcome::Deleted))
    }
}

struct DeleteMany {
    group_id: i64,
    ids: Vec<MessageId>,
    claims: Vec<ClaimId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for DeleteMany {
    type Reply = Final<Option<u64>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, ids, claims, now } = self;
        let (group_id, now) = (*group_id, *now);
        if !unit.has_group(group_id) {
            return Ok(Progress::done(claims.is_empty().then_some(0)));
        }
        let own = unit.own_sequences(ids);
        let mut found = unit.find(group_id, &own, now).await?;
        let holds = |claim: &ClaimId| {
            found.iter().any(|at| {
                unit.cache.stored(*at).is_some_and(|message| message.holder(now) == Some(*claim))
            })
        };
        if !claims.iter().all(holds) {
            return Ok(Progress::done(None));
        }
        found.sort_by_key(|at| at.sequence);
        found.dedup_by_key(|at| at.sequence);
        for at in &found {
            remove_with_unseen_copies(unit, *at, now).await?;
        }
        unit.group(group_id)?.add_completed(found.len(), now);
        Ok(Progress::done(Some(found.len() as u64)))
    }
}

/// Removes a message. If no consumer has seen it yet, removes the copies in groups and in the
/// retention log too.
async fn remove_with_unseen_copies(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
    now: Timestamp,
) -> Result<()> {
    if at.group_id == unit.queue_id && unit.stored(at)?.is_scheduled(now) {
        for copy in scheduled_copies(unit, at, now).await? {
            unit.remove_message(copy, now).await?;
        }
        if let Some(copy) = retained(unit, at).await? {
            unit.delete_message(copy)?;
        }
    }
    unit.remove_message(at, now).await.map(drop)
}

/// Returns the copies of a scheduled message in named groups, if no consumer has seen them: what
/// the producer does with the message applies to them too.
async fn scheduled_copies(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
    now: Timestamp,
) -> Result<Vec<MessageLocation>> {
    let mut copies = Vec::new();
    for group_id in unit.document()?.named_groups() {
        for copy in unit.find(group_id, &[at.sequence], now).await? {
            if unit.stored(copy)?.is_scheduled(now) {
                copies.push(copy);
            }
        }
    }
    Ok(copies)
}

/// Returns the copy of a message in the retention log.
async fn retained(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
) -> Result<Option<MessageLocation>> {
    let Some(log) = unit.document()?.retention_log() else { return Ok(None) };
    unit.load_positions(log, &[at.sequence]).await?;
    Ok(unit.cache.find(log, at.sequence))
}

struct Reschedule {
    group_id: i64,
    id: MessageId,
    visible_at: Timestamp,
    now: Timestamp,
}

#[async_trait]
impl Operation for Reschedule {
    type Reply = Final<Rescheduled>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, visible_at, now } = *self;
        if !unit.has_group(group_id) {
            return Ok(Progress::done(Rescheduled::Missing));
        }
        let own = unit.own_sequences(&[id]);
        let Some(at) = unit.find(group_id, &own, now).await?.pop() else {
            return Ok(Progress::done(Rescheduled::Missing));
        };
        let message = unit.stored(at)?;
        if message.state != State::Delayed || message.visible_at() <= now.as_millis() {
            return Ok(Progress::done(Rescheduled::Visible));
        }
        if group_id == unit.queue_id && message.is_scheduled(now) {
            for copy in scheduled_copies(unit, at, now).await? {
                delay_until(unit, copy, visible_at, now).await?;
            }
            if let Some(copy) = retained(unit, at).await? {
                unit.change(copy, |message| set_visible_at(message, visible_at.max(now)))?;
            }
        }
        delay_until(unit, at, visible_at, now).await?;
        Ok(Progress::done(Rescheduled::Moved))
    }
}

/// Changes when a scheduled message becomes visible.
async fn delay_until(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let message = unit.change(at, |message| set_visible_at(message, visible_at.max(now)))?;
    unit.record_due(at.group_id, message.next_transition());
    if visible_at <= now { unit.make_ready(at, now).await } else { Ok(()) }
}

/// Sets when a message becomes visible. Its ttl counts from then on.
fn set_visible_at(message: &mut StoredMessage, visible_at: Timestamp) {
    message.set_visible_at(visible_at.as_millis());
    message.expires_at = visible_at.as_millis().saturating_add(message.ttl.saturating_mul(1_000));
}
