//! Deletes the data of dropped queues and deleted groups.
//!
//! The collection `pool_garbage` has a document for each of them, inserted before it is dropped.

use std::time::Duration;

use mongodb::bson::{Bson, doc, oid::ObjectId};
use storage_traits::{Result, domain::Timestamp, pool::Swept};

use super::{
    MongoPool,
    collections::Query,
    indexes::{BUCKETS, BY_ID, BY_POSITION, BY_ROTATION, GARBAGE, ORDERING_KEYS, QUEUES},
    recovery::{RECHECK_INTERVAL, is_abandoned},
    unit_of_work::MAX_UNIT_MESSAGES,
};
use crate::error::unexpected;

/// How long the document of a dropped queue is kept. It keeps the queue from being opened again
/// under the same incarnation, by a node that has not learned of the drop: message ids would be
/// reused.
const TOMBSTONE_TTL: Duration = Duration::from_mins(10);
/// How many dropped queues and groups one sweep visits at most.
const MAX_DROPPED: usize = 16;

impl MongoPool {
    /// Deletes some of the data of dropped queues and deleted groups.
    pub(super) async fn collect_garbage(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let found = self.due_documents(GARBAGE, now, MAX_DROPPED).await?;
        for raw in &found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let queue_id = raw.get_i64("queue_id").map_err(unexpected)?;
            let group_id = raw.get_i64("group_id").ok();
            let document = self.0.collections.read_committed(queue_id).await?;
            let exists = document.is_some_and(|document| {
                group_id.is_none_or(|group_id| document.group(group_id).is_some())
            });
            if exists {
                // The drop has not been committed yet, or never will be.
                self.postpone(GARBAGE, id, now).await?;
                continue;
            }
            let deleted = self.delete_data(queue_id, group_id).await?;
            swept.processed += deleted;
            if deleted > 0 {
                swept.more = true;
            } else {
                swept.processed += 1;
                let is_marked = raw.get_bool("is_empty").is_ok();
                self.retire(id, queue_id, group_id, is_marked, now).await?;
            }
            if swept.processed >= MAX_UNIT_MESSAGES as u64 {
                swept.more = true;
                return Ok(());
            }
        }
        swept.more |= found.len() == MAX_DROPPED && swept.processed > 0;
        Ok(())
    }

    /// Deletes some of the documents of a queue or a group, and returns how many.
    async fn delete_data(&self, queue_id: i64, group_id: Option<i64>) -> Result<u64> {
        let mut filter = doc! { "queue_id": queue_id };
        if let Some(group_id) = group_id {
            filter.insert("group_id", group_id);
        }
        let mut count = 0;
        for (name, index) in [(BUCKETS, BY_POSITION), (ORDERING_KEYS, BY_ROTATION)] {
            let limit = MAX_UNIT_MESSAGES / 2;
            let query = Query { filter: filter.clone(), sort: None, index, limit };
            let fields = Some(doc! { "_id": 1 });
            let found = self.0.collections.find_projected(name, query, fields).await?;
            let deletes = found.iter().map(|raw| {
                let id = raw.get("_id").ok().flatten();
                let id = id.and_then(|id| Bson::try_from(id).ok());
                doc! { "q": { "_id": id, "queue_id": queue_id }, "limit": 1, "hint": BY_ID }
            });
            count += self.0.collections.delete(name, deletes.collect(), false).await?;
        }
        Ok(count)
    }

    /// Marks a queue or group whose data is deleted, and removes its last documents the next time.
    /// Until then late commands may still insert data.
    async fn retire(
        &self,
        id: ObjectId,
        queue_id: i64,
        group_id: Option<i64>,
        is_marked: bool,
        now: Timestamp,
    ) -> Result<()> {
        if !is_marked {
            let wait = if group_id.is_none() { TOMBSTONE_TTL } else { RECHECK_INTERVAL };
            let due = now.plus(wait).as_millis();
            let change = doc! { "$set": { "due": due, "is_empty": true } };
            let update = doc! { "q": { "_id": id }, "u": change, "hint": BY_ID };
            return self.0.collections.update(GARBAGE, vec![update], false).await.map(drop);
        }
        if group_id.is_none() {
            let query = doc! { "_id": queue_id, "dropped": true };
            let queue = doc! { "q": query, "limit": 1, "hint": BY_ID };
            self.0.collections.delete(QUEUES, vec![queue], true).await?;
        }
        let garbage = doc! { "q": { "_id": id }, "limit": 1, "hint": BY_ID };
        self.0.collections.delete(GARBAGE, vec![garbage], false).await.map(drop)
    }

    /// Lets a later sweep visit a document whose commit is not found, and deletes one whose commit
    /// will never come.
    pub(super) async fn postpone(
        &self,
        name: &'static str,
        id: ObjectId,
        now: Timestamp,
    ) -> Result<()> {
        if is_abandoned(id) {
            let delete = doc! { "q": { "_id": id }, "limit": 1, "hint": BY_ID };
            return self.0.collections.delete(name, vec![delete], false).await.map(drop);
        }
        let due = now.plus(RECHECK_INTERVAL).as_millis();
        let update = doc! { "q": { "_id": id }, "u": { "$set": { "due": due } }, "hint": BY_ID };
        self.0.collections.update(name, vec![update], false).await.map(drop)
    }
}
