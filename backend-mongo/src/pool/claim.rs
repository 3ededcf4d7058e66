//! Claims and pops.

use async_trait::async_trait;
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message,
        QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    MongoPool,
    beside::{ClaimRecord, garbage_after},
    body::Answer,
    letters::Burial,
    operation::Operation,
    shelf::Spot,
    slot::{Slot, State, seconds, whole_seconds},
    step::{Progress, STEP, Step},
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
        let Some(home) = self.home(queue).await? else { return Ok(None) };
        let mut spec = spec.clone();
        let own = [home, queue.incarnation.get()];
        spec.dead_letter =
            spec.dead_letter.filter(|rule| !own.contains(&rule.queue.incarnation.get()));
        if let Some(rule) = &spec.dead_letter
            && !self.is_open(&rule.queue).await?
        {
            return Err(StoreError::not_found("queue", &rule.queue.key));
        }
        let reading = queue.incarnation.get();
        loop {
            let create = Create { reading, spec: spec.clone(), now };
            let Claimed { claim, leaving, again } = self.run(home, create).await?;
            if leaving && let Err(error) = self.see_off(home).await {
                // What was taken is taken; the next claim or the sweep delivers them.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, queue = home, "dead letters are still to be delivered");
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
        let Some(home) = self.home(queue).await? else { return Ok(None) };
        self.run(home, Get { reading: queue.incarnation.get(), id, now }).await
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        let Some(home) = self.home(queue).await? else {
            return Err(StoreError::not_found("claim", &id));
        };
        self.run(home, Renew { reading: queue.incarnation.get(), id, terms, now }).await
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let Some(home) = self.home(queue).await? else { return Ok(()) };
        self.run(home, Release { reading: queue.incarnation.get(), id, now }).await
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let Some(home) = self.home(queue).await? else {
            return Ok(vec![AckResult::NotHeld; acknowledgements.len()]);
        };
        let said = acknowledgements.to_vec();
        self.run(home, Acknowledge { reading: queue.incarnation.get(), id, said, now }).await
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let Some(home) = self.home(queue).await? else { return Ok(Vec::new()) };
        self.run(home, Pop { reading: queue.incarnation.get(), limit, now }).await
    }
}

struct Create {
    reading: i64,
    spec: ClaimSpec,
    now: Timestamp,
}

/// What came of a claim.
#[derive(Default)]
struct Claimed {
    claim: Option<Claim>,
    /// Whether letters are on their way.
    leaving: bool,
    /// Whether it is to be tried again, since letters were all that it came to.
    again: bool,
}

impl Answer for Claimed {
    fn messages(&mut self) -> &mut [Message] {
        self.claim.messages()
    }
}

#[async_trait]
impl Operation for Create {
    type Answer = Claimed;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, spec, now } = self;
        let (reading, now) = (*reading, *now);
        if !step.knows(reading) {
            return Ok(Progress::Done(Claimed::default()));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let mut burial = spec.dead_letter.as_ref().map(|rule| Burial::new(reading, rule, now));
        let mut taken: Vec<Spot> = Vec::new();
        let mut plain_first = true;
        let mut moved = 0;
        while taken.len() < spec.limit.get() {
            let Some(side) = step.next_side(reading, plain_first).await? else { break };
            let free = step.first_of(reading, &side, spec.limit.get() - taken.len()).await?;
            if free.is_empty() {
                if step.hole.is_some() {
                    break;
                }
                // Nothing is left on a side that was said to have something.
                return Err(unexpected("the queue's counters are wrong"));
            }
            plain_first &= side.key.is_some();
            let before = taken.len();
            for at in free {
                let count = step.slot(at)?.claim_count;
                match &mut burial {
                    Some(burial) if count >= burial.most() => {
                        burial.bury(step, at).await?;
                        moved += 1;
                    }
                    _ => {
                        take(step, at, spec, now)?;
                        taken.push(at);
                    }
                }
            }
            step.close_side(reading, &side, taken.len() - before, now).await?;
            if moved >= STEP {
                break;
            }
        }
        if let Some(burial) = burial {
            burial.end(step).await?;
        }
        let leaving = !step.record()?.leaving.is_empty();
        let again = taken.is_empty() && moved >= STEP;
        let claim = if taken.is_empty() {
            None
        } else {
            Some(record(step, reading, spec, &mut taken, now)?)
        };
        Ok(Progress::Done(Claimed { claim, leaving, again }))
    }
}

/// Writes a claim down.
fn record(
    step: &mut Step<'_>,
    reading: i64,
    spec: &ClaimSpec,
    taken: &mut [Spot],
    now: Timestamp,
) -> Result<Claim> {
    taken.sort_by_key(|at| at.sequence);
    let expires_at = now.plus(spec.terms.ttl).as_millis();
    let claim = ClaimRecord {
        id: ClaimRecord::name(reading, spec.id),
        home: step.home,
        renewed_at: now.as_millis(),
        ttl: whole_seconds(spec.terms.ttl),
        expires_at,
        sequences: taken.iter().map(|at| at.sequence).collect(),
        version: 0,
        garbage_at: garbage_after(expires_at),
    };
    step.shelf.claims.insert((reading, spec.id.to_bytes()), Some(claim.clone()));
    step.claims.push(claim);
    let messages = taken.iter().map(|at| step.message(*at)).collect::<Result<_>>()?;
    Ok(Claim { id: spec.id, renewed_at: now, ttl: spec.terms.ttl, messages })
}

/// Puts a free message under the claim.
fn take(step: &mut Step<'_>, at: Spot, spec: &ClaimSpec, now: Timestamp) -> Result<()> {
    let was_ready = step.slot(at)?.state == State::Ready;
    let slot = step.change(at, |slot| {
        hold(slot, spec.id, spec.terms, now);
        slot.claim_count = slot.claim_count.saturating_add(1);
    })?;
    step.note_due(at.reading, slot.due());
    let counters = step.reading(at.reading)?;
    counters.claimed += 1;
    counters.ready -= i64::from(was_ready);
    Ok(())
}

/// Writes the claim on the message, which lives on with it if it would expire before.
fn hold(slot: &mut Slot, claim: ClaimId, terms: ClaimTerms, now: Timestamp) {
    slot.state = State::Claimed;
    slot.set_claim(Some(claim));
    let lapses_at = now.plus(terms.ttl).as_millis();
    if slot.expires_at < lapses_at {
        let ttl = terms.ttl.saturating_add(terms.grace);
        slot.ttl = whole_seconds(ttl);
        slot.expires_at = now.plus(ttl).as_millis();
    }
    slot.held_until = Some(lapses_at);
}

/// What a live claim still holds, in order.
async fn held(
    step: &mut Step<'_>,
    reading: i64,
    id: ClaimId,
    record: &ClaimRecord,
    now: Timestamp,
) -> Result<Vec<Spot>> {
    let found = step.find(reading, &record.sequences, now).await?;
    let holds = |at: &Spot| {
        let slot = step.shelf.slot(*at);
        slot.is_some_and(|slot| slot.state == State::Claimed && slot.claim() == Some(id))
    };
    Ok(found.into_iter().filter(holds).collect())
}

/// A claim that holds at `now`.
pub(super) async fn live(
    step: &mut Step<'_>,
    reading: i64,
    id: ClaimId,
    now: Timestamp,
) -> Result<Option<ClaimRecord>> {
    if !step.knows(reading) {
        return Ok(None);
    }
    Ok(step.claim(reading, id).await?.filter(|claim| claim.is_alive(now)))
}

struct Get {
    reading: i64,
    id: ClaimId,
    now: Timestamp,
}

#[async_trait]
impl Operation for Get {
    type Answer = Option<Claim>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, id, now } = *self;
        let Some(record) = live(step, reading, id, now).await? else {
            return Ok(Progress::Done(None));
        };
        let held = held(step, reading, id, &record, now).await?;
        let messages = held.iter().map(|at| step.message(*at)).collect::<Result<_>>()?;
        let renewed_at = Timestamp::from_millis(record.renewed_at);
        Ok(Progress::Done(Some(Claim { id, renewed_at, ttl: seconds(record.ttl), messages })))
    }
}

struct Renew {
    reading: i64,
    id: ClaimId,
    terms: ClaimTerms,
    now: Timestamp,
}

#[async_trait]
impl Operation for Renew {
    type Answer = ();

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<()>> {
        let Self { reading, id, terms, now } = *self;
        let Some(mut record) = live(step, reading, id, now).await? else {
            return Err(StoreError::not_found("claim", &id));
        };
        for at in held(step, reading, id, &record, now).await? {
            let slot = step.change(at, |slot| hold(slot, id, terms, now))?;
            step.note_due(reading, slot.due());
        }
        record.renewed_at = now.as_millis();
        record.ttl = whole_seconds(terms.ttl);
        record.expires_at = now.plus(terms.ttl).as_millis();
        record.garbage_at = garbage_after(record.expires_at);
        step.change_claim(reading, id, record);
        Ok(Progress::Done(()))
    }
}

struct Release {
    reading: i64,
    id: ClaimId,
    now: Timestamp,
}

#[async_trait]
impl Operation for Release {
    type Answer = ();

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<()>> {
        let Self { reading, id, now } = *self;
        let Some(mut record) = live(step, reading, id, now).await? else {
            return Ok(Progress::Done(()));
        };
        for at in held(step, reading, id, &record, now).await? {
            put_back(step, at, now, now).await?;
        }
        record.expires_at = i64::MIN;
        step.change_claim(reading, id, record);
        Ok(Progress::Done(()))
    }
}

impl Step<'_> {
    fn change_claim(&mut self, reading: i64, id: ClaimId, record: ClaimRecord) {
        self.dirty = true;
        self.shelf.claims.insert((reading, id.to_bytes()), Some(record.clone()));
        // One that the same step makes is written as it is at last.
        match self.claims.iter_mut().find(|claim| claim.id == record.id) {
            Some(claim) => *claim = record,
            None => self.changed_claims.push(record),
        }
    }
}

/// Takes a message out of its claim: free at once, or at a later moment.
async fn put_back(
    step: &mut Step<'_>,
    at: Spot,
    retry_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if retry_at <= now {
        step.change(at, |slot| slot.set_claim(None))?;
        return step.free(at, now).await;
    }
    let slot = step.change(at, |slot| {
        slot.set_claim(None);
        slot.state = State::Delayed;
        slot.held_until = None;
        slot.set_visible_at(retry_at.as_millis());
    })?;
    step.note_due(at.reading, slot.due());
    let counters = step.reading(at.reading)?;
    counters.claimed -= 1;
    counters.delayed += 1;
    Ok(())
}

struct Acknowledge {
    reading: i64,
    id: ClaimId,
    said: Vec<Acknowledgement>,
    now: Timestamp,
}

#[async_trait]
impl Operation for Acknowledge {
    type Answer = Vec<AckResult>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, id, said, now } = self;
        let (reading, now) = (*reading, *now);
        if !step.knows(reading) {
            return Ok(Progress::Done(vec![AckResult::NotHeld; said.len()]));
        }
        let ids: Vec<_> = said.iter().map(|one| one.id).collect();
        let own = step.own(&ids);
        step.load_positions(reading, &own).await?;
        let mut answers = Vec::with_capacity(said.len());
        for one in said {
            let own = one.id.incarnation.get() == step.home;
            let at = step.shelf.find(reading, one.id.sequence.get()).filter(|_| own);
            let holds = |at: &Spot| {
                let slot = step.shelf.slot(*at);
                slot.is_some_and(|slot| !slot.is_over(now) && slot.holder(now) == Some(*id))
            };
            let Some(at) = at.filter(holds) else {
                answers.push(AckResult::NotHeld);
                continue;
            };
            match one.outcome {
                AckOutcome::Ack => {
                    step.remove(at, now).await?;
                    step.reading(reading)?.handle(1, now);
                }
                AckOutcome::Nack { delay } => {
                    put_back(step, at, now.plus(delay), now).await?;
                }
            }
            answers.push(AckResult::Applied);
        }
        Ok(Progress::Done(answers))
    }
}

struct Pop {
    reading: i64,
    limit: Limit,
    now: Timestamp,
}

#[async_trait]
impl Operation for Pop {
    type Answer = Vec<Message>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, limit, now } = *self;
        if !step.knows(reading) {
            return Ok(Progress::Done(Vec::new()));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let mut taken: Vec<Message> = Vec::new();
        let mut plain_first = true;
        while taken.len() < limit.get() {
            let Some(side) = step.next_side(reading, plain_first).await? else { break };
            let free = step.first_of(reading, &side, limit.get() - taken.len()).await?;
            if free.is_empty() {
                if step.hole.is_some() {
                    break;
                }
                return Err(unexpected("the queue's counters are wrong"));
            }
            plain_first &= side.key.is_some();
            step.takes_off = true;
            for at in &free {
                taken.push(step.message(*at)?);
                step.remove(*at, now).await?;
            }
            step.reading(reading)?.handle(free.len(), now);
            match &side.key {
                Some(key) => step.send_to_end(reading, key).await?,
                None => step.close_side(reading, &side, 0, now).await?,
            }
        }
        taken.sort_by_key(|message| message.id);
        Ok(Progress::Done(taken))
    }
}
