//! Life and care of the queues.

use async_trait::async_trait;
use mongodb::bson::{doc, oid::ObjectId};
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{EventCounts, MessagePosition, PoolMaintenance, Stats, Swept},
};

use super::{
    MongoPool,
    body::Answer,
    operation::Operation,
    settle::Settled,
    shelf::Spot,
    slot::{State, message_id},
    step::{Progress, STEP, Scan, Step},
    stores::{BY_ID, QUEUES, REFUSE},
};
use crate::error::unexpected;

/// How many buckets a purge goes through at a time.
const PURGE_BUCKETS: usize = 16;

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
        self.sweep_some(now).await
    }

    fn counters(&self) -> EventCounts {
        self.side_counters()
    }

    async fn check(&self) -> Result<()> {
        self.ready().await?;
        self.stores().barrier(0).await
    }

    async fn close(&self) {
        self.shut_down().await;
    }
}

impl MongoPool {
    /// Settles a reading in as many steps as it takes.
    pub(super) async fn settle_all(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let Some(home) = self.home(queue).await? else { return Ok(()) };
        let settle = Settle { reading: queue.incarnation.get(), now, all: true };
        self.run(home, settle).await.map(drop)
    }
}

/// Brings a reading up to the time: in one step, or in as many as it takes. Answers nothing if it is
/// unknown.
pub(super) struct Settle {
    pub(super) reading: i64,
    pub(super) now: Timestamp,
    pub(super) all: bool,
}

impl Answer for Option<Settled> {}

#[async_trait]
impl Operation for Settle {
    type Answer = Option<Settled>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        if !step.knows(self.reading) {
            return Ok(Progress::Done(None));
        }
        let settled = step.settle(self.reading, self.now).await?;
        let again = self.all && !settled.done;
        Ok(if again { Progress::Again } else { Progress::Done(Some(settled)) })
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
            completed_last_minute: counters.recent().last_minute(now),
        };
        if stats.free + stats.claimed > 0 {
            stats.oldest = oldest(step, reading).await?;
            stats.newest = newest(step, reading).await?;
        }
        Ok(Progress::Done(stats))
    }
}

fn mark(step: &Step<'_>, at: Spot) -> Result<MessagePosition> {
    Ok(MessagePosition {
        id: message_id(step.ids()?, at.sequence)?,
        posted_at: Timestamp::from_millis(step.slot(at)?.posted_at),
    })
}

async fn oldest(step: &mut Step<'_>, reading: i64) -> Result<Option<MessagePosition>> {
    let (mut after, tail) = (0, step.record()?.tail);
    while after < tail {
        let known = step.load_beyond(reading, after, Scan::All, 2).await?;
        let first = step.shelf.beyond(reading, after).find_map(|bucket| {
            let (offset, _) = bucket.slots.first_key_value()?;
            let sequence = bucket.sequence(*offset);
            Some(Spot { bucket: bucket.id, offset: *offset, reading, sequence })
        });
        if let Some(at) = first.filter(|at| at.sequence <= known) {
            return mark(step, at).map(Some);
        }
        after = known;
    }
    Ok(None)
}

async fn newest(step: &mut Step<'_>, reading: i64) -> Result<Option<MessagePosition>> {
    let mut before = i64::MAX;
    loop {
        let known = step.load_last(reading, before).await?;
        let last = step.shelf.backward(reading).find_map(|bucket| {
            let (offset, _) = bucket.slots.last_key_value()?;
            let sequence = bucket.sequence(*offset);
            Some(Spot { bucket: bucket.id, offset: *offset, reading, sequence })
        });
        if let Some(at) = last.filter(|at| at.sequence >= known) {
            return mark(step, at).map(Some);
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
            known = found.last().map_or(known, |at| at.sequence);
        }
        for at in &found {
            if log {
                step.erase(*at)?;
            } else {
                step.remove(*at, now).await?;
            }
        }
        Ok(Progress::Done(Purged { deleted: found.len() as u64, after: known, up_to }))
    }
}
