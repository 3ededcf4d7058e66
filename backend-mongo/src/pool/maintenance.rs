//! Life and care of the queues.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};
use storage_traits::{
    Clock, Result, SystemClock,
    domain::{QueueRef, Timestamp},
    pool::{MessageMark, PoolCounters, PoolMaintenance, Stats, Swept},
};

use super::{
    MongoPool,
    body::Answer,
    operation::Operation,
    shelf::Spot,
    slot::{State, message_id},
    step::{Progress, STEP, Scan, Step},
    stores::{BUCKETS, BY_ID, BY_PLACE, BY_TIME, BY_TURN, LINES, PARCELS, QUEUES, Query, REFUSE},
};
use crate::error::unexpected;

/// How long a dropped queue's incarnation stays refused.
const RETIREMENT: Duration = Duration::from_mins(10);
/// How many readings one sweep looks at.
const SWEEP_READINGS: i64 = 64;
/// How many parcels and pieces of refuse one sweep looks at.
const SWEEP_PIECES: i64 = 16;
/// How long something may be on its way before it counts as lost.
const LOST_AFTER: Duration = Duration::from_mins(10);
/// When to look again at what is on its way.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How many buckets a purge goes through at a time.
const PURGE_BUCKETS: i64 = 16;

#[async_trait]
impl PoolMaintenance for MongoPool {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let number = queue.incarnation.get();
        let record = doc! {
            "_id": number,
            "project": queue.key.project.as_str(),
            "name": queue.key.name.as_str(),
            "epoch": 0_i64,
            "shape": 0_i64,
            "tail": 0_i64,
            "readings": { number.to_string(): { "ready": 0_i64, "delayed": 0_i64 } },
            "reading_ids": [number],
            "journal": [],
        };
        self.stores().insert(QUEUES, &[record], true).await
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let home = queue.incarnation.get();
        let refuse = doc! { "_id": ObjectId::new(), "home": home, "due": 0_i64 };
        self.stores().insert(REFUSE, &[refuse], true).await?;
        let readings = self.stores().record(home).await?.map(|record| record.open_readings());
        let update = doc! {
            "q": { "_id": home },
            "u": {
                "$set": { "gone": true },
                "$inc": { "epoch": 1_i64 },
                "$setOnInsert": {
                    "project": queue.key.project.as_str(), "name": queue.key.name.as_str(),
                },
                "$unset": {
                    "readings": "", "reading_ids": "", "journal": "", "leaving": "",
                    "letters_from": "",
                },
            },
            "upsert": true,
            "hint": BY_ID,
        };
        self.stores().update(QUEUES, vec![update], true).await?;
        for reading in readings.into_iter().flatten().chain([home]) {
            self.wakes().gone(reading);
        }
        Ok(())
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        let Some(home) = self.home(queue).await? else { return Ok(Stats::default()) };
        self.run(home, Count { reading: queue.incarnation.get(), now }).await
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        let Some(home) = self.home(queue).await? else { return Ok(0) };
        self.settle_all(queue, now).await?;
        let reading = queue.incarnation.get();
        let (mut purged, mut up_to) = (0, None);
        for log in [false, true] {
            let mut after = 0;
            loop {
                let step = Purge { reading, log, after, up_to, now };
                let done = self.run(home, step).await?;
                purged += if log { 0 } else { done.deleted };
                up_to = Some(done.up_to);
                after = done.after;
                if after >= done.up_to {
                    break;
                }
            }
        }
        Ok(purged)
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        self.ready().await?;
        // What this node has committed is to be seen in the database.
        self.flush_all().await;
        let mut swept = Swept::default();
        self.clear_refuse(now, &mut swept).await?;
        if swept.handled < STEP as u64 {
            self.deliver_lost(now, &mut swept).await?;
        }
        if swept.handled < STEP as u64 {
            self.settle_due(now, &mut swept).await?;
        }
        if swept.handled < STEP as u64 {
            self.clear_lost_buckets(now, &mut swept).await?;
        }
        Ok(swept)
    }

    fn counters(&self) -> PoolCounters {
        self.side_counters()
    }

    async fn check(&self) -> Result<()> {
        self.ready().await?;
        self.stores().barrier().await
    }

    async fn close(&self) {
        self.shut_down().await;
    }
}

/// Something older than this may have been lost on its way.
fn lost() -> ObjectId {
    let before = SystemClock.now().as_millis() / 1_000
        - i64::try_from(LOST_AFTER.as_secs()).unwrap_or(i64::MAX);
    let seconds = u32::try_from(before).unwrap_or(0).to_be_bytes();
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds);
    ObjectId::from_bytes(bytes)
}

fn number(raw: &RawDocumentBuf, name: &str) -> Option<i64> {
    raw.get_i64(name).ok()
}

impl MongoPool {
    /// Settles a reading in as many steps as it takes.
    pub(super) async fn settle_all(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let Some(home) = self.home(queue).await? else { return Ok(()) };
        let settle = Settle { reading: queue.incarnation.get(), now, all: true };
        self.run(home, settle).await.map(drop)
    }

    async fn due(
        &self,
        name: &'static str,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<RawDocumentBuf>> {
        let filter = doc! { "due": { "$lte": now.as_millis() } };
        let query = Query { filter, sort: Some(doc! { "due": 1 }), index: BY_TIME, limit };
        self.stores().find_parts(name, query, Some(doc! { "slots": 0, "bodies": 0 })).await
    }

    /// Settles some readings in which something is due.
    async fn settle_due(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let filter = doc! { "due": { "$lte": now.as_millis() }, "reading": { "$exists": true } };
        let sort = Some(doc! { "due": 1 });
        let query = Query { filter, sort, index: BY_TIME, limit: SWEEP_READINGS };
        let parts = Some(doc! { "home": 1, "reading": 1 });
        let due = self.stores().find_parts(BUCKETS, query, parts).await?;
        let full = due.len() as i64 == SWEEP_READINGS;
        let readings: BTreeSet<(i64, i64)> = due
            .iter()
            .filter_map(|raw| Some((number(raw, "home")?, number(raw, "reading")?)))
            .collect();
        let mut done = true;
        for (home, reading) in readings {
            let settled = self.run(home, Settle { reading, now, all: false }).await?;
            self.flush(home).await;
            swept.handled += settled.handled;
            done &= settled.done;
            if swept.handled >= STEP as u64 {
                swept.more = true;
                return Ok(());
            }
        }
        swept.more |= !done || (full && swept.handled > 0);
        Ok(())
    }

    /// Removes some of what dropped queues and ended readings left behind.
    async fn clear_refuse(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let found = self.due(REFUSE, now, SWEEP_PIECES).await?;
        for raw in &found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let home = raw.get_i64("home").map_err(unexpected)?;
            let reading = number(raw, "reading");
            let record = self.stores().record(home).await?;
            let lives = record.is_some_and(|record| {
                reading.is_none_or(|reading| record.reading(reading).is_some())
            });
            if lives {
                // Whoever wanted it gone has not said so yet, or never will.
                self.look_again(REFUSE, id, now).await?;
                continue;
            }
            let removed = self.clear(home, reading).await?;
            swept.handled += removed;
            if removed > 0 {
                swept.more = true;
            } else {
                swept.handled += 1;
                self.retire(id, home, reading, raw.get_bool("retired").is_ok(), now).await?;
            }
            if swept.handled >= STEP as u64 {
                swept.more = true;
                return Ok(());
            }
        }
        swept.more |= found.len() as i64 == SWEEP_PIECES && swept.handled > 0;
        Ok(())
    }

    async fn look_again(&self, name: &'static str, id: ObjectId, now: Timestamp) -> Result<()> {
        if id < lost() {
            let delete = doc! { "q": { "_id": id }, "limit": 1, "hint": BY_ID };
            return self.stores().delete(name, vec![delete], false).await.map(drop);
        }
        let due = now.plus(LOOK_AGAIN).as_millis();
        let update = doc! { "q": { "_id": id }, "u": { "$set": { "due": due } }, "hint": BY_ID };
        self.stores().update(name, vec![update], false).await.map(drop)
    }

    /// Deletes some of the documents of a queue, or of one reading.
    async fn clear(&self, home: i64, reading: Option<i64>) -> Result<u64> {
        let mut filter = doc! { "home": home };
        if let Some(reading) = reading {
            filter.insert("reading", reading);
        }
        let mut removed = 0;
        for (name, index) in [(BUCKETS, BY_PLACE), (LINES, BY_TURN)] {
            let limit = STEP as i64 / 2;
            let query = Query { filter: filter.clone(), sort: None, index, limit };
            let found = self.stores().find_parts(name, query, Some(doc! { "_id": 1 })).await?;
            let deletes = found.iter().map(|raw| {
                let id = raw.get("_id").ok().flatten();
                let id = id.and_then(|id| Bson::try_from(id).ok());
                doc! { "q": { "_id": id, "home": home }, "limit": 1, "hint": BY_ID }
            });
            removed += self.stores().delete(name, deletes.collect(), false).await?;
        }
        Ok(removed)
    }

    /// Marks an emptied queue, at its next turn removes it. In between nobody can open it again,
    /// not even a node that was slow to hear that it is gone: its ids would be given out twice.
    async fn retire(
        &self,
        id: ObjectId,
        home: i64,
        reading: Option<i64>,
        retired: bool,
        now: Timestamp,
    ) -> Result<()> {
        if reading.is_none() && !retired {
            let due = now.plus(RETIREMENT).as_millis();
            let change = doc! { "$set": { "due": due, "retired": true } };
            let update = doc! { "q": { "_id": id }, "u": change, "hint": BY_ID };
            return self.stores().update(REFUSE, vec![update], false).await.map(drop);
        }
        if reading.is_none() {
            let queue = doc! { "q": { "_id": home, "gone": true }, "limit": 1, "hint": BY_ID };
            self.stores().delete(QUEUES, vec![queue], true).await?;
        }
        let refuse = doc! { "q": { "_id": id }, "limit": 1, "hint": BY_ID };
        self.stores().delete(REFUSE, vec![refuse], false).await.map(drop)
    }

    /// Delivers letters whose node was lost on the way.
    async fn deliver_lost(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let found = self.due(PARCELS, now, SWEEP_PIECES).await?;
        let homes: BTreeSet<i64> = found.iter().filter_map(|raw| number(raw, "home")).collect();
        for home in homes {
            self.see_off(home).await?;
        }
        for raw in &found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let query = Query { filter: doc! { "_id": id }, sort: None, index: BY_ID, limit: 1 };
            let parts = Some(doc! { "_id": 1 });
            if self.stores().find_parts(PARCELS, query, parts).await?.is_empty() {
                swept.handled += 1;
            } else {
                self.look_again(PARCELS, id, now).await?;
            }
        }
        swept.more |= found.len() as i64 == SWEEP_PIECES && swept.handled > 0;
        Ok(())
    }

    /// Looks after buckets that a lost node has stored: those that it committed get their place, the
    /// others go.
    async fn clear_lost_buckets(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let filter = doc! {
            "due": { "$lte": now.as_millis() },
            "reading": { "$exists": false },
            "_id": { "$lt": lost() },
        };
        let sort = Some(doc! { "due": 1 });
        let query = Query { filter, sort, index: BY_TIME, limit: SWEEP_PIECES };
        let found = self.stores().find_parts(BUCKETS, query, Some(doc! { "home": 1 })).await?;
        for raw in found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let home = raw.get_i64("home").map_err(unexpected)?;
            let record = self.stores().record(home).await?;
            let journal = record.map(|record| record.journal).unwrap_or_default();
            let names =
                |entry: &super::record::Entry| entry.placed.iter().any(|it| it.bucket == id);
            if journal.iter().any(names) {
                super::apply::carry_out(self.stores(), home, &journal, true).await?;
            } else {
                let filter = doc! { "_id": id, "home": home, "reading": { "$exists": false } };
                let delete: Document = doc! { "q": filter, "limit": 1, "hint": BY_ID };
                self.stores().delete(BUCKETS, vec![delete], false).await?;
            }
            swept.handled += 1;
        }
        Ok(())
    }
}

/// Brings a reading up to the time: in one step, or in as many as it takes.
struct Settle {
    reading: i64,
    now: Timestamp,
    all: bool,
}

impl Answer for super::settle::Settled {}

#[async_trait]
impl Operation for Settle {
    type Answer = super::settle::Settled;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        if !step.knows(self.reading) {
            return Ok(Progress::Done(super::settle::Settled { done: true, handled: 0 }));
        }
        let settled = step.settle(self.reading, self.now).await?;
        Ok(if self.all && !settled.done { Progress::Again } else { Progress::Done(settled) })
    }
}

struct Count {
    reading: i64,
    now: Timestamp,
}

#[async_trait]
impl Operation for Count {
    type Answer = Stats;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Stats>> {
        let Self { reading, now } = *self;
        if !step.knows(reading) {
            return Ok(Progress::Done(Stats::default()));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let counters = step.reading(reading)?.clone();
        let count = |number: i64| u64::try_from(number).map_err(unexpected);
        let mut stats = Stats {
            free: count(counters.free())?,
            claimed: count(counters.claimed)?,
            oldest: None,
            newest: None,
            handled: counters.recent().last_minute(now),
        };
        if stats.free + stats.claimed > 0 {
            stats.oldest = oldest(step, reading).await?;
            stats.newest = newest(step, reading).await?;
        }
        Ok(Progress::Done(stats))
    }
}

fn mark(step: &Step<'_>, spot: Spot) -> Result<MessageMark> {
    Ok(MessageMark {
        id: message_id(step.ids()?, spot.sequence)?,
        posted_at: Timestamp::from_millis(step.slot(spot)?.posted_at),
    })
}

async fn oldest(step: &mut Step<'_>, reading: i64) -> Result<Option<MessageMark>> {
    let (mut after, tail) = (0, step.record()?.tail);
    while after < tail {
        let known = step.load_beyond(reading, after, Scan::All, 2).await?;
        let first = step.shelf.beyond(reading, after).find_map(|bucket| {
            let (offset, _) = bucket.slots.first_key_value()?;
            let sequence = bucket.sequence(*offset);
            Some(Spot { bucket: bucket.id, offset: *offset, reading, sequence })
        });
        if let Some(spot) = first.filter(|spot| spot.sequence <= known) {
            return mark(step, spot).map(Some);
        }
        after = known;
    }
    Ok(None)
}

async fn newest(step: &mut Step<'_>, reading: i64) -> Result<Option<MessageMark>> {
    let mut before = i64::MAX;
    loop {
        let known = step.load_last(reading, before).await?;
        let last = step.shelf.backward(reading).find_map(|bucket| {
            let (offset, _) = bucket.slots.last_key_value()?;
            let sequence = bucket.sequence(*offset);
            Some(Spot { bucket: bucket.id, offset: *offset, reading, sequence })
        });
        if let Some(spot) = last.filter(|spot| spot.sequence >= known) {
            return mark(step, spot).map(Some);
        }
        if known == i64::MIN {
            return Ok(None);
        }
        before = known;
    }
}

struct Purge {
    reading: i64,
    /// Whether to purge what the queue retains.
    log: bool,
    after: i64,
    up_to: Option<i64>,
    now: Timestamp,
}

/// How far a purge has come.
struct Purged {
    deleted: u64,
    after: i64,
    up_to: i64,
}

impl Answer for Purged {}

#[async_trait]
impl Operation for Purge {
    type Answer = Purged;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Purged>> {
        let Self { log, after, now, .. } = *self;
        let done = Purged { deleted: 0, after: i64::MAX, up_to: self.up_to.unwrap_or(0) };
        if !step.knows(self.reading) {
            return Ok(Progress::Done(done));
        }
        let reading = match (log, step.record()?.log()) {
            (false, _) => self.reading,
            (true, Some(log)) if self.reading == step.home => log,
            _ => return Ok(Progress::Done(done)),
        };
        let up_to = match self.up_to {
            Some(up_to) => up_to,
            None => step.record()?.tail,
        };
        let scan = if log { Scan::All } else { Scan::Unclaimed };
        let mut known = step.load_beyond(reading, after, scan, PURGE_BUCKETS).await?.min(up_to);
        let mut found = Vec::new();
        for bucket in step.shelf.beyond(reading, after) {
            let goes = |state: State| state != State::Claimed;
            for (offset, _) in bucket.slots.iter().filter(|(_, slot)| goes(slot.state)) {
                let sequence = bucket.sequence(*offset);
                if sequence > after && sequence <= known {
                    found.push(Spot { bucket: bucket.id, offset: *offset, reading, sequence });
                }
            }
        }
        if found.len() > STEP {
            found.truncate(STEP);
            known = found.last().map_or(known, |spot| spot.sequence);
        }
        for spot in &found {
            if log {
                step.erase(*spot)?;
            } else {
                step.remove(*spot, now).await?;
            }
        }
        Ok(Progress::Done(Purged { deleted: found.len() as u64, after: known, up_to }))
    }
}
