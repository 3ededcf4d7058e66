//! Queue lifecycle and maintenance.

use async_trait::async_trait;
use mongodb::bson::{doc, oid::ObjectId};
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{EventCounts, MessagePosition, PoolMaintenance, Stats, Swept},
};

use super::{
    MongoPool,
    bodies::Final,
    bucket::MessageLocation,
    due::ApplyDue,
    indexes::{BY_ID, GARBAGE, QUEUES},
    loading::Scan,
    operation::Operation,
    stored_message::{State, message_id},
    unit_of_work::{MAX_UNIT_MESSAGES, Progress, UnitOfWork},
};
use crate::error::unexpected;

/// How many buckets a step of a purge loads.
const PURGE_BUCKETS: usize = 16;

#[async_trait]
impl PoolMaintenance for MongoPool {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue_id = queue.incarnation.get();
        let document = doc! {
            "_id": queue_id,
            "project": queue.key.project.as_str(),
            "name": queue.key.name.as_str(),
            "revision": 0_i64,
            "groups_version": 0_i64,
            "tail": 0_i64,
            "groups": { queue_id.to_string(): { "ready": 0_i64, "delayed": 0_i64 } },
            "group_ids": [queue_id],
            "journal": [],
        };
        self.0.collections.insert(QUEUES, &[document], true).await
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue_id = queue.incarnation.get();
        let garbage = doc! { "_id": ObjectId::new(), "queue_id": queue_id, "due": 0_i64 };
        self.0.collections.insert(GARBAGE, &[garbage], true).await?;
        let group_ids = self
            .0
            .collections
            .read_committed(queue_id)
            .await?
            .map(|document| document.receiving_groups());
        let update = doc! {
            "q": { "_id": queue_id },
            "u": {
                "$set": { "dropped": true },
                "$inc": { "revision": 1_i64 },
                "$setOnInsert": {
                    "project": queue.key.project.as_str(), "name": queue.key.name.as_str(),
                },
                "$unset": {
                    "groups": "", "group_ids": "", "journal": "", "outgoing_transfers": "",
                    "last_transfer_from": "",
                },
            },
            "upsert": true,
            "hint": BY_ID,
        };
        self.0.collections.update(QUEUES, vec![update], true).await?;
        for group_id in group_ids.into_iter().flatten().chain([queue_id]) {
            self.0.events.notify_dropped(group_id);
        }
        Ok(())
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(Stats::default()) };
        self.0.run(queue_id, Count { group_id: queue.incarnation.get(), now }).await
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(0) };
        self.apply_all_due(queue, now).await?;
        let group_id = queue.incarnation.get();
        let (mut purged, mut up_to) = (0, None);
        for retention_log in [false, true] {
            let mut after = 0;
            loop {
                let purge = Purge { group_id, retention_log, after, up_to, now };
                let progress = self.0.run(queue_id, purge).await?;
                purged += if retention_log { 0 } else { progress.deleted };
                up_to = Some(progress.up_to);
                after = progress.after;
                if after >= progress.up_to {
                    break;
                }
            }
        }
        Ok(purged)
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        self.run_sweep(now).await
    }

    fn counters(&self) -> EventCounts {
        self.0.events.counters.snapshot()
    }

    async fn check(&self) -> Result<()> {
        self.0.ready().await?;
        self.0.collections.majority_barrier(0).await
    }

    async fn close(&self) {
        self.0.shut_down().await;
    }
}

impl MongoPool {
    /// Applies what is due in a queue or group, in as many steps as it takes.
    pub(super) async fn apply_all_due(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(()) };
        let apply = ApplyDue { group_id: queue.incarnation.get(), now, all: true };
        self.0.run(queue_id, apply).await.map(drop)
    }
}

struct Count {
    group_id: i64,
    now: Timestamp,
}

#[async_trait]
impl Operation for Count {
    type Reply = Final<Stats>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, now } = *self;
        if !unit.has_group(group_id) {
            return Ok(Progress::done(Stats::default()));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let group = unit.group(group_id)?.clone();
        let count = |number: i64| u64::try_from(number).map_err(unexpected);
        let mut stats = Stats {
            free: count(group.unclaimed())?,
            claimed: count(group.claimed)?,
            oldest: None,
            newest: None,
            completed_last_minute: group.completed_counter().last_minute(now),
        };
        if stats.free + stats.claimed > 0 {
            stats.oldest = oldest(unit, group_id).await?;
            stats.newest = newest(unit, group_id).await?;
        }
        Ok(Progress::done(stats))
    }
}

fn position_of(unit: &UnitOfWork<'_>, at: MessageLocation) -> Result<MessagePosition> {
    Ok(MessagePosition {
        id: message_id(unit.incarnation()?, at.sequence)?,
        posted_at: Timestamp::from_millis(unit.stored(at)?.posted_at),
    })
}

async fn oldest(unit: &mut UnitOfWork<'_>, group_id: i64) -> Result<Option<MessagePosition>> {
    let (mut after, tail) = (0, unit.document()?.tail);
    while after < tail {
        let known = unit.load_after(group_id, after, Scan::All, 2).await?;
        let first = unit.cache.buckets_after(group_id, after).find_map(|bucket| {
            let (offset, _) = bucket.messages.first_key_value()?;
            Some(bucket.location(*offset))
        });
        if let Some(at) = first.filter(|at| at.sequence <= known) {
            return position_of(unit, at).map(Some);
        }
        after = known;
    }
    Ok(None)
}

async fn newest(unit: &mut UnitOfWork<'_>, group_id: i64) -> Result<Option<MessagePosition>> {
    let mut before = i64::MAX;
    loop {
        let known = unit.load_before(group_id, before).await?;
        let last = unit.cache.buckets_backward(group_id).find_map(|bucket| {
            let (offset, _) = bucket.messages.last_key_value()?;
            Some(bucket.location(*offset))
        });
        if let Some(at) = last.filter(|at| at.sequence >= known) {
            return position_of(unit, at).map(Some);
        }
        if known == i64::MIN {
            return Ok(None);
        }
        before = known;
    }
}

struct Purge {
    group_id: i64,
    /// Whether to purge the retention log of the queue.
    retention_log: bool,
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

#[async_trait]
impl Operation for Purge {
    type Reply = Final<Purged>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { retention_log, after, now, .. } = *self;
        let finished = Purged { deleted: 0, after: i64::MAX, up_to: self.up_to.unwrap_or(0) };
        if !unit.has_group(self.group_id) {
            return Ok(Progress::done(finished));
        }
        let group_id = match (retention_log, unit.document()?.retention_log()) {
            (false, _) => self.group_id,
            (true, Some(retention_log)) if self.group_id == unit.queue_id => retention_log,
            _ => return Ok(Progress::done(finished)),
        };
        let up_to = match self.up_to {
            Some(up_to) => up_to,
            None => unit.document()?.tail,
        };
        let scan = if retention_log { Scan::All } else { Scan::Unclaimed };
        let mut known = unit.load_after(group_id, after, scan, PURGE_BUCKETS).await?.min(up_to);
        let mut found = Vec::new();
        for bucket in unit.cache.buckets_after(group_id, after) {
            for (offset, _) in
                bucket.messages.iter().filter(|(_, message)| message.state != State::Claimed)
            {
                let sequence = bucket.sequence(*offset);
                if sequence > after && sequence <= known {
                    found.push(bucket.location(*offset));
                }
            }
        }
        if found.len() > MAX_UNIT_MESSAGES {
            found.truncate(MAX_UNIT_MESSAGES);
            known = found.last().map_or(known, |at| at.sequence);
        }
        for at in &found {
            if retention_log {
                unit.delete_message(*at)?;
            } else {
                unit.remove_message(*at, now).await?;
            }
        }
        Ok(Progress::done(Purged { deleted: found.len() as u64, after: known, up_to }))
    }
}
