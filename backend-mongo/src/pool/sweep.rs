//! The sweep: what nobody asks for is done by the way.

use std::{collections::BTreeSet, time::Duration};

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};
use storage_traits::{Clock, Result, SystemClock, domain::Timestamp, pool::Swept};

use super::{
    MongoPool,
    maintenance::Settle,
    step::STEP,
    stores::{BUCKETS, BY_ID, BY_PLACE, BY_TIME, BY_TURN, LINES, PARCELS, QUEUES, Query, REFUSE},
};
use crate::error::unexpected;

/// How long a dropped queue's incarnation stays refused.
const RETIREMENT: Duration = Duration::from_mins(10);
/// How many readings one sweep looks at.
const SWEEP_READINGS: usize = 64;
/// How many parcels and pieces of refuse one sweep looks at.
const SWEEP_PIECES: usize = 16;
/// How long something may be on its way before it counts as lost.
const LOST_AFTER: Duration = Duration::from_mins(10);
/// When to look again at what is on its way.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

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
    /// Does some of the work that is due, of each kind. What cannot be done keeps nothing else from
    /// being done.
    pub(super) async fn sweep_some(&self, now: Timestamp) -> Result<Swept> {
        self.ready().await?;
        // What this node has committed is to be seen in the database.
        self.flush_all().await;
        let mut swept = Swept::default();
        let mut failed = self.clear_refuse(now, &mut swept).await.err();
        if swept.processed < STEP as u64 {
            failed = self.deliver_lost(now, &mut swept).await.err().or(failed);
        }
        if swept.processed < STEP as u64 {
            failed = self.settle_due(now, &mut swept).await.err().or(failed);
        }
        if swept.processed < STEP as u64 {
            failed = self.clear_lost_buckets(now, &mut swept).await.err().or(failed);
        }
        match failed {
            Some(error) if swept.processed == 0 => Err(error),
            Some(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "not all could be swept");
                Ok(swept)
            }
            None => Ok(swept),
        }
    }

    async fn due(
        &self,
        name: &'static str,
        now: Timestamp,
        limit: usize,
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
        let full = due.len() == SWEEP_READINGS;
        let readings: BTreeSet<(i64, i64)> = due
            .iter()
            .filter_map(|raw| Some((number(raw, "home")?, number(raw, "reading")?)))
            .collect();
        let (mut done, mut failed) = (true, None);
        for (home, reading) in readings {
            match self.run(home, Settle { reading, now, all: false }).await {
                Ok(Some(settled)) => {
                    self.flush(home).await;
                    swept.processed += settled.handled;
                    done &= settled.done;
                }
                // It came into a reading just when that ended.
                Ok(None) => {
                    let id = ObjectId::new();
                    let refuse = doc! { "_id": id, "home": home, "reading": reading, "due": 0_i64 };
                    self.stores().insert(REFUSE, &[refuse], false).await?;
                    swept.processed += 1;
                    done = false;
                }
                Err(error) => failed = Some(error),
            }
            if swept.processed >= STEP as u64 {
                swept.more = true;
                return failed.map_or(Ok(()), Err);
            }
        }
        swept.more |= swept.processed > 0 && (!done || full);
        failed.map_or(Ok(()), Err)
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
            swept.processed += removed;
            if removed > 0 {
                swept.more = true;
            } else {
                swept.processed += 1;
                self.retire(id, home, reading, raw.get_bool("retired").is_ok(), now).await?;
            }
            if swept.processed >= STEP as u64 {
                swept.more = true;
                return Ok(());
            }
        }
        swept.more |= found.len() == SWEEP_PIECES && swept.processed > 0;
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
            let limit = STEP / 2;
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

    /// Marks an emptied queue or reading, at its next turn removes it. In between nobody can open the
    /// queue again, not even a node that was slow to hear that it is gone: its ids would be given
    /// out twice. And what was on its way to a reading has come by then.
    async fn retire(
        &self,
        id: ObjectId,
        home: i64,
        reading: Option<i64>,
        retired: bool,
        now: Timestamp,
    ) -> Result<()> {
        if !retired {
            let wait = if reading.is_none() { RETIREMENT } else { LOOK_AGAIN };
            let due = now.plus(wait).as_millis();
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
        let mut failed = None;
        for home in homes {
            failed = self.see_off(home).await.err().or(failed);
        }
        for raw in &found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let query = Query { filter: doc! { "_id": id }, sort: None, index: BY_ID, limit: 1 };
            let parts = Some(doc! { "_id": 1 });
            if self.stores().find_parts(PARCELS, query, parts).await?.is_empty() {
                swept.processed += 1;
            } else {
                self.look_again(PARCELS, id, now).await?;
            }
        }
        swept.more |= found.len() == SWEEP_PIECES && swept.processed > 0;
        failed.map_or(Ok(()), Err)
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
            swept.processed += 1;
        }
        Ok(())
    }
}
