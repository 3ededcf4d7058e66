//! Letters: messages that go from one queue to another.
//!
//! No commit spans two queues, so letters travel: the commit that takes them out of their queue
//! names a parcel that holds them, and they are delivered by a step of the other queue, which
//! remembers how far it has got. Whoever finds a parcel that was left behind delivers it.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use async_trait::async_trait;
use mongodb::bson::{
    Binary, Bson, Document, doc, oid::ObjectId, serialize_to_bson, spec::BinarySubtype,
};
use storage_traits::{
    Limit, Page, Result,
    domain::{DeadLetter, Origin, QueueRef, Timestamp},
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

use super::{
    MongoPool,
    append::{append, put},
    body::Answer,
    bucket::{CAPACITY, CAPACITY_BYTES},
    operation::Operation,
    record::{ForWhom, Leaving, Record},
    shelf::Spot,
    slot::{Slot, State, seconds, whole_seconds},
    step::{Progress, Scan, Step},
    stores::{BY_ID, PARCELS, Query},
};
use crate::error::unexpected;

/// How many letters are looked at to find some that are free.
const LOOK_AHEAD: usize = 1_024;
/// The numbers of one epoch's parcels lie side by side.
const NUMBERS: i64 = 1 << 20;

/// Letters that leave in a step: each with the slot that it gets, and where its body is.
struct Bundle {
    to: i64,
    for_whom: ForWhom,
    letters: Vec<(Slot, (ObjectId, u32))>,
}

/// Moves messages to a dead-letter queue.
pub(super) struct Burial {
    reading: i64,
    rule: DeadLetter,
    now: Timestamp,
    bundle: Bundle,
}

impl Burial {
    pub(super) fn new(reading: i64, rule: &DeadLetter, now: Timestamp) -> Self {
        let for_whom = if rule.retained { ForWhom::AllAndLater } else { ForWhom::All };
        let to = rule.queue.incarnation.get();
        let bundle = Bundle { to, for_whom, letters: Vec::new() };
        Self { reading, rule: rule.clone(), now, bundle }
    }

    /// How many claims a message may see.
    pub(super) fn most(&self) -> i64 {
        i64::from(self.rule.max_claim_count)
    }

    /// Takes a free message out of its queue.
    pub(super) async fn bury(&mut self, step: &mut Step<'_>, at: Spot) -> Result<()> {
        let slot = step.remove(at, self.now).await?;
        let ttl = self.rule.ttl.unwrap_or_else(|| seconds(slot.ttl));
        let group = step.reading(self.reading)?.group.as_ref().map(|group| group.name.clone());
        let group = group.map(|name| name.parse().map_err(unexpected)).transpose()?;
        let origin = Origin { queue: step.ids()?, group, ttl: seconds(slot.ttl) };
        let letter = letter(slot, Some(origin.to_text()), self.now, self.now, whole_seconds(ttl));
        self.bundle.letters.push((letter, (at.bucket, at.offset)));
        step.tally.dead_lettered += 1;
        Ok(())
    }

    pub(super) async fn end(self, step: &mut Step<'_>) -> Result<()> {
        send(step, self.bundle, self.now).await
    }
}

/// A message as it starts anew in another queue.
fn letter(
    slot: Slot,
    origin: Option<String>,
    visible_at: Timestamp,
    now: Timestamp,
    ttl: i64,
) -> Slot {
    let mut letter = Slot {
        posted_at: now.as_millis(),
        expires_at: visible_at.plus(seconds(ttl)).as_millis(),
        ttl,
        held_until: None,
        claim_count: 0,
        origin,
        ..slot
    };
    letter.set_claim(None);
    letter.set_visible_at(visible_at.as_millis());
    letter.state = letter.first_state(now);
    letter
}

/// Sends a bundle off, in parcels of a bounded size.
async fn send(step: &mut Step<'_>, bundle: Bundle, now: Timestamp) -> Result<()> {
    if bundle.letters.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = bundle.letters.iter().map(|(_, place)| *place).collect();
    let bodies = step.stores.bodies(&wanted).await?;
    let (mut slots, mut stored, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (slot, place) in &bundle.letters {
        let body = bodies.get(place).ok_or_else(|| unexpected("a body is missing"))?;
        if slots.len() >= CAPACITY || (!slots.is_empty() && bytes + body.len() > CAPACITY_BYTES) {
            pack(step, &bundle, std::mem::take(&mut slots), std::mem::take(&mut stored), now)?;
            bytes = 0;
        }
        bytes += body.len();
        slots.push(serialize_to_bson(slot).map_err(unexpected)?);
        stored.push(Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: body.to_vec() }));
    }
    pack(step, &bundle, slots, stored, now)
}

fn pack(
    step: &mut Step<'_>,
    bundle: &Bundle,
    slots: Vec<Bson>,
    bodies: Vec<Bson>,
    now: Timestamp,
) -> Result<()> {
    let epoch = step.base.as_ref().map_or(0, |record| record.epoch) + 1;
    let leaving = Leaving {
        parcel: ObjectId::new(),
        to: bundle.to,
        number: epoch * NUMBERS + i64::try_from(step.parcels.len()).map_err(unexpected)?,
        for_whom: bundle.for_whom.clone(),
        now: now.as_millis(),
    };
    let document = doc! {
        "_id": leaving.parcel,
        "home": step.home,
        "due": now.as_millis(),
        "slots": slots,
        "bodies": bodies,
    };
    step.dirty = true;
    step.record()?.leaving.push(leaving);
    step.parcels.push(document);
    Ok(())
}

impl MongoPool {
    /// Delivers the letters that have left a queue.
    pub(super) async fn see_off(&self, home: i64) -> Result<()> {
        let Some(record) = self.stores().record(home).await? else { return Ok(()) };
        let mut arrived = Vec::new();
        for leaving in record.leaving {
            arrived.push(leaving.parcel);
            let to = leaving.to;
            let found = Query {
                filter: doc! { "_id": leaving.parcel },
                sort: None,
                index: BY_ID,
                limit: 1,
            };
            // Without it somebody else has delivered it, and is about to say so.
            let found = self.stores().find(PARCELS, found).await?;
            if let Some(parcel) = found.first() {
                let parcel: Document = parcel.try_into().map_err(unexpected)?;
                self.run(to, Deliver { from: home, leaving, parcel }).await?;
            }
        }
        if arrived.is_empty() {
            return Ok(());
        }
        let deletes = arrived
            .iter()
            .map(|it| doc! { "q": { "_id": it }, "limit": 1, "hint": BY_ID })
            .collect();
        self.run(home, Arrived { parcels: arrived }).await?;
        self.stores().delete(PARCELS, deletes, false).await.map(drop)
    }
}

/// Puts letters where they go.
struct Deliver {
    from: i64,
    leaving: Leaving,
    parcel: Document,
}

#[async_trait]
impl Operation for Deliver {
    type Answer = ();

    const APPENDS: bool = true;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<()>> {
        let (home, from) = (step.home, self.from.to_string());
        // What goes to a queue that is gone, goes with it.
        let Some(record) = &mut step.record else {
            // A new primary may not know yet what is durable.
            let is_gone = step.stores.latest(home).await?.is_none();
            return Ok(if is_gone { Progress::Done(()) } else { Progress::Again });
        };
        let last = record.letters_from.get(&from).copied().unwrap_or(0);
        if last >= self.leaving.number {
            return Ok(Progress::Done(()));
        }
        record.letters_from.insert(from, self.leaving.number);
        step.dirty = true;
        let only = match &self.leaving.for_whom {
            ForWhom::All | ForWhom::AllAndLater => None,
            ForWhom::Queue => Some(home),
            // With a group its messages go.
            ForWhom::Group(name) => match step.record()?.group(name) {
                Some(reading) => Some(reading),
                None => return Ok(Progress::Done(())),
            },
        };
        let now = Timestamp::from_millis(self.leaving.now);
        let retained = self.leaving.for_whom == ForWhom::AllAndLater;
        let slots = self.parcel.get_array("slots").map_err(unexpected)?;
        let bodies = self.parcel.get_array("bodies").map_err(unexpected)?;
        for (slot, body) in slots.iter().zip(bodies) {
            let slot: Slot =
                mongodb::bson::deserialize_from_bson(slot.clone()).map_err(unexpected)?;
            let Bson::Binary(body) = body else { return Err(unexpected("a body is not binary")) };
            match only {
                None => drop(append(step, &slot, &body.bytes, retained, now).await?),
                Some(reading) => {
                    // The queue gives it its position, whoever reads it.
                    let record = step.record()?;
                    record.tail += 1;
                    let sequence = record.tail;
                    put(step, reading, sequence, &slot, &body.bytes, now).await?;
                }
            }
        }
        Ok(Progress::Done(()))
    }
}

/// Forgets letters that have arrived.
struct Arrived {
    parcels: Vec<ObjectId>,
}

#[async_trait]
impl Operation for Arrived {
    type Answer = ();

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<()>> {
        if let Some(record) = &mut step.record {
            let before = record.leaving.len();
            record.leaving.retain(|leaving| !self.parcels.contains(&leaving.parcel));
            step.dirty |= record.leaving.len() < before;
        }
        Ok(Progress::Done(()))
    }
}

#[async_trait]
impl DeadLetterStore for MongoPool {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let nothing = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        let Some(home) = self.home(queue).await? else { return Ok(nothing) };
        let redrive = Redrive { reading: queue.incarnation.get(), spec, now };
        let done = self.run(home, redrive).await?;
        if done.moved > 0
            && let Err(error) = self.see_off(home).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, queue = home, "redriven messages are still to be delivered");
        }
        Ok(done)
    }
}

struct Redrive {
    reading: i64,
    spec: RedriveSpec,
    now: Timestamp,
}

#[async_trait]
impl Operation for Redrive {
    type Answer = Redriven;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, spec, now } = *self;
        let mut done = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        if !step.knows(reading) {
            return Ok(Progress::Done(done));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let found = free_letters(step, reading, spec.limit).await?;
        done.more = found.more;
        let before = Timestamp::from_millis(step.reading(reading)?.next_redrive);
        let schedule = RedriveSchedule::new(spec.rate, before, now);
        let mut homes = HashMap::new();
        let mut bundles: Vec<Bundle> = Vec::new();
        for at in found.items {
            let origin = step.slot(at)?.origin.as_deref().and_then(Origin::from_text);
            let Some(origin) = origin else {
                strand(step, at)?;
                done.orphaned += 1;
                continue;
            };
            if !is_there(step, &mut homes, &origin).await? {
                strand(step, at)?;
                done.orphaned += 1;
                continue;
            }
            let visible_at = schedule.visible_at(done.moved);
            let slot = step.remove(at, now).await?;
            let letter = letter(slot, None, visible_at, now, whole_seconds(origin.ttl));
            let to = origin.queue.get();
            let for_whom = match origin.group {
                None => ForWhom::Queue,
                Some(name) => ForWhom::Group(name.as_str().to_owned()),
            };
            let body = (at.bucket, at.offset);
            match bundles.iter_mut().find(|it| it.to == to && it.for_whom == for_whom) {
                Some(bundle) => bundle.letters.push((letter, body)),
                None => bundles.push(Bundle { to, for_whom, letters: vec![(letter, body)] }),
            }
            done.moved += 1;
            done.last_visible_at = visible_at;
        }
        for bundle in bundles {
            send(step, bundle, now).await?;
        }
        let next = schedule.next_free(done.moved, before).as_millis();
        let counters = step.reading(reading)?;
        if counters.next_redrive != next {
            counters.next_redrive = next;
            step.dirty = true;
        }
        Ok(Progress::Done(done))
    }
}

/// Whether the queue or the group that gave a letter up still is.
async fn is_there(
    step: &mut Step<'_>,
    homes: &mut HashMap<i64, Option<Record>>,
    origin: &Origin,
) -> Result<bool> {
    let queue = origin.queue.get();
    let home = match homes.entry(queue) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(step.stores.record(queue).await?),
    };
    let home = home.as_ref();
    Ok(home.is_some_and(|record| match &origin.group {
        None => true,
        Some(name) => record.group(name.as_str()).is_some(),
    }))
}

/// The first free messages with an origin.
async fn free_letters(step: &mut Step<'_>, reading: i64, limit: Limit) -> Result<Page<Spot>> {
    let (mut found, mut looked, mut after) = (Vec::new(), 0, 0);
    let tail = step.record()?.tail;
    let mut open: HashSet<String> = HashSet::new();
    while found.len() <= limit.get() && after < tail && looked < LOOK_AHEAD {
        let known = step.load_beyond(reading, after, Scan::Letters, 16).await?.min(tail);
        let mut here = Vec::new();
        for bucket in step.shelf.beyond(reading, after) {
            let letters = bucket.slots.iter().filter(|(_, slot)| slot.origin.is_some());
            for (offset, slot) in letters {
                let sequence = bucket.sequence(*offset);
                if sequence > after && sequence <= known {
                    let at = Spot { bucket: bucket.id, offset: *offset, reading, sequence };
                    here.push((at, slot.state, slot.key.clone()));
                }
            }
        }
        for (at, state, key) in here {
            looked += 1;
            let is_free = match (state, key) {
                (State::Ready, _) => true,
                (State::InLine, Some(key)) => {
                    if !open.contains(&key) && step.line(reading, &key).await?.turn.is_some() {
                        open.insert(key.clone());
                    }
                    open.contains(&key)
                }
                _ => false,
            };
            if is_free {
                found.push(at);
            }
        }
        after = known;
    }
    let mut page = Page::cut(found, limit);
    page.more |= after < tail && looked >= LOOK_AHEAD;
    Ok(page)
}

/// Makes a dead letter whose origin is gone a message like any.
fn strand(step: &mut Step<'_>, at: Spot) -> Result<()> {
    step.change(at, |slot| slot.origin = None)?;
    step.reading(at.reading)?.letters -= 1;
    Ok(())
}

impl Answer for Vec<ObjectId> {}
