//! Messages: look at them, delete them, put them off.

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
    claim::live,
    operation::Operation,
    posts::is_plain,
    shelf::Spot,
    slot::{Slot, State},
    step::{Progress, Scan, Step},
};

/// How many buckets a list loads at first; more the longer it gets.
const PAGE_BUCKETS: usize = 4;
const MOST_PAGE_BUCKETS: usize = 64;

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
        let home = queue.incarnation.get();
        let posted = if is_plain(&messages) {
            self.store(home, client, messages, now).await?
        } else {
            self.run(home, Append { client: client.clone(), messages, now }).await?
        };
        posted.ok_or_else(missing)
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        let Some(home) = self.home(queue).await? else { return Ok(Page::empty()) };
        self.run(home, List { reading: queue.incarnation.get(), spec: spec.clone(), now }).await
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        let Some(home) = self.home(queue).await? else { return Ok(Vec::new()) };
        self.run(home, Get { reading: queue.incarnation.get(), ids: ids.to_vec(), now }).await
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let Some(home) = self.home(queue).await? else { return Ok(DeleteOutcome::Missing) };
        self.run(home, Delete { reading: queue.incarnation.get(), id, claim, now }).await
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let Some(home) = self.home(queue).await? else { return Ok(Rescheduled::Missing) };
        self.run(home, Reschedule { reading: queue.incarnation.get(), id, visible_at, now }).await
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let Some(home) = self.home(queue).await? else {
            return Ok(claims.is_empty().then_some(0));
        };
        let (ids, claims) = (ids.to_vec(), claims.to_vec());
        self.run(home, DeleteMany { reading: queue.incarnation.get(), ids, claims, now }).await
    }
}

struct List {
    reading: i64,
    spec: ListSpec,
    now: Timestamp,
}

impl List {
    fn shows(&self, slot: &Slot) -> bool {
        let wanted = match slot.state {
            State::Ready | State::InLine => self.spec.include_free,
            State::Delayed => self.spec.include_delayed,
            State::Claimed => self.spec.include_claimed,
            State::Retained => false,
        };
        let hides = self.spec.hide_client.as_ref().is_some_and(|own| own.as_str() == slot.client);
        wanted && !hides
    }
}

#[async_trait]
impl Operation for List {
    type Answer = Page<Message>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, spec, now } = self;
        let (reading, now) = (*reading, *now);
        if !step.knows(reading) {
            return Ok(Progress::Done(Page::empty()));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let scan = if spec.include_claimed { Scan::All } else { Scan::Unclaimed };
        // Behind a message that is still to come nothing is shown, or a reader would miss it.
        let tail = step.record()?.tail;
        let end = step.hole.map_or(tail, |hole| tail.min(hole - 1));
        let mut after = spec.after.map_or(0, Sequence::get);
        let (mut found, mut buckets): (Vec<Spot>, usize) = (Vec::new(), PAGE_BUCKETS);
        while found.len() <= spec.limit.get() && after < end {
            let known = step.load_beyond(reading, after, scan, buckets).await?.min(end);
            buckets = MOST_PAGE_BUCKETS.min(buckets * 2);
            for bucket in step.shelf.beyond(reading, after) {
                if bucket.first > known {
                    break;
                }
                let shown = bucket.slots.iter().filter(|(_, slot)| self.shows(slot));
                let spots = shown.map(|(offset, _)| Spot {
                    bucket: bucket.id,
                    offset: *offset,
                    reading,
                    sequence: bucket.sequence(*offset),
                });
                found.extend(spots.filter(|it| it.sequence > after && it.sequence <= known));
            }
            after = known;
        }
        let page = Page::cut(found, spec.limit);
        let items = page.items.iter().map(|at| step.message(*at)).collect::<Result<_>>()?;
        Ok(Progress::Done(Page { items, more: page.more }))
    }
}

struct Get {
    reading: i64,
    ids: Vec<MessageId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for Get {
    type Answer = Vec<Message>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        if !step.knows(self.reading) {
            return Ok(Progress::Done(Vec::new()));
        }
        let own = step.own(&self.ids);
        let found = step.find(self.reading, &own, self.now).await?;
        let messages = found.iter().map(|at| step.message(*at)).collect::<Result<_>>()?;
        Ok(Progress::Done(messages))
    }
}

struct Delete {
    reading: i64,
    id: MessageId,
    claim: Option<ClaimId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for Delete {
    type Answer = DeleteOutcome;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, id, claim, now } = *self;
        let missing = Ok(Progress::Done(DeleteOutcome::Missing));
        if !step.knows(reading) {
            return missing;
        }
        let own = step.own(&[id]);
        let Some(at) = step.find(reading, &own, now).await?.pop() else { return missing };
        let holder = step.slot(at)?.holder(now);
        let refusal = match (claim, holder) {
            (None, None) => None,
            (None, Some(_)) => Some(DeleteRefusal::Claimed),
            (Some(claim), _) if live(step, reading, claim, now).await?.is_none() => {
                Some(DeleteRefusal::UnknownClaim)
            }
            (Some(_), None) => Some(DeleteRefusal::NotClaimed),
            (Some(claim), Some(holder)) => {
                (claim != holder).then_some(DeleteRefusal::ClaimedByOther)
            }
        };
        if let Some(refusal) = refusal {
            return Ok(Progress::Done(DeleteOutcome::Refused(refusal)));
        }
        remove_everywhere(step, at, now).await?;
        step.reading(reading)?.handle(1, now);
        Ok(Progress::Done(DeleteOutcome::Deleted))
    }
}

struct DeleteMany {
    reading: i64,
    ids: Vec<MessageId>,
    claims: Vec<ClaimId>,
    now: Timestamp,
}

#[async_trait]
impl Operation for DeleteMany {
    type Answer = Option<u64>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, ids, claims, now } = self;
        let (reading, now) = (*reading, *now);
        if !step.knows(reading) {
            return Ok(Progress::Done(claims.is_empty().then_some(0)));
        }
        let own = step.own(ids);
        let mut found = step.find(reading, &own, now).await?;
        let holds = |claim: &ClaimId| {
            found
                .iter()
                .any(|at| step.shelf.slot(*at).is_some_and(|slot| slot.holder(now) == Some(*claim)))
        };
        if !claims.iter().all(holds) {
            return Ok(Progress::Done(None));
        }
        found.sort_by_key(|at| at.sequence);
        found.dedup_by_key(|at| at.sequence);
        for at in &found {
            remove_everywhere(step, *at, now).await?;
        }
        step.reading(reading)?.handle(found.len(), now);
        Ok(Progress::Done(Some(found.len() as u64)))
    }
}

/// Removes a message, and with it the copies of groups if nobody has seen it yet.
async fn remove_everywhere(step: &mut Step<'_>, at: Spot, now: Timestamp) -> Result<()> {
    if at.reading == step.home && step.slot(at)?.is_scheduled(now) {
        for copy in scheduled_copies(step, at, now).await? {
            step.remove(copy, now).await?;
        }
        if let Some(copy) = retained(step, at).await? {
            step.erase(copy)?;
        }
    }
    step.remove(at, now).await.map(drop)
}

/// The copies that groups have of a message which nobody has seen yet: what its producer does with
/// it counts for them as well.
async fn scheduled_copies(step: &mut Step<'_>, at: Spot, now: Timestamp) -> Result<Vec<Spot>> {
    let mut copies = Vec::new();
    for reading in step.record()?.groups() {
        for copy in step.find(reading, &[at.sequence], now).await? {
            if step.slot(copy)?.is_scheduled(now) {
                copies.push(copy);
            }
        }
    }
    Ok(copies)
}

/// What a queue retains of a message.
async fn retained(step: &mut Step<'_>, at: Spot) -> Result<Option<Spot>> {
    let Some(log) = step.record()?.log() else { return Ok(None) };
    step.load_positions(log, &[at.sequence]).await?;
    Ok(step.shelf.find(log, at.sequence))
}

struct Reschedule {
    reading: i64,
    id: MessageId,
    visible_at: Timestamp,
    now: Timestamp,
}

#[async_trait]
impl Operation for Reschedule {
    type Answer = Rescheduled;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, id, visible_at, now } = *self;
        if !step.knows(reading) {
            return Ok(Progress::Done(Rescheduled::Missing));
        }
        let own = step.own(&[id]);
        let Some(at) = step.find(reading, &own, now).await?.pop() else {
            return Ok(Progress::Done(Rescheduled::Missing));
        };
        let slot = step.slot(at)?;
        if slot.state != State::Delayed || slot.visible_at() <= now.as_millis() {
            return Ok(Progress::Done(Rescheduled::Visible));
        }
        if reading == step.home && slot.is_scheduled(now) {
            for copy in scheduled_copies(step, at, now).await? {
                put_off(step, copy, visible_at, now).await?;
            }
            if let Some(copy) = retained(step, at).await? {
                step.change(copy, |slot| move_to(slot, visible_at.max(now)))?;
            }
        }
        put_off(step, at, visible_at, now).await?;
        Ok(Progress::Done(Rescheduled::Moved))
    }
}

/// Moves a message that is not visible yet.
async fn put_off(
    step: &mut Step<'_>,
    at: Spot,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let slot = step.change(at, |slot| move_to(slot, visible_at.max(now)))?;
    step.note_due(at.reading, slot.due());
    if visible_at <= now { step.free(at, now).await } else { Ok(()) }
}

/// Its ttl counts from when it becomes visible.
fn move_to(slot: &mut Slot, visible_at: Timestamp) {
    slot.set_visible_at(visible_at.as_millis());
    slot.expires_at = visible_at.as_millis().saturating_add(slot.ttl.saturating_mul(1_000));
}
