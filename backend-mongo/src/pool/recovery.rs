//! Recovers the work of nodes that crashed between inserting documents and applying a commit.

use std::{collections::BTreeSet, time::Duration};

use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_traits::{Clock, Result, SystemClock, domain::Timestamp, pool::Swept};

use super::{
    MongoPool,
    apply::apply_entries,
    collections::Query,
    indexes::{BUCKETS, BY_ID, BY_TIME, TRANSFERS},
    queue_document::JournalEntry,
};
use crate::error::unexpected;

/// How many documents of each kind one sweep visits at most.
const MAX_DOCUMENTS: usize = 16;
/// After how long a document that no commit names counts as abandoned by its node.
const ABANDONED_AFTER: Duration = Duration::from_mins(10);
/// When to check again whether a document has been committed.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Returns whether a document was created so long ago that its commit will never come.
pub(super) fn is_abandoned(id: ObjectId) -> bool {
    id < oldest_in_progress()
}

/// Returns the least id of documents whose commit may still come. Ids start with the time of their
/// creation.
fn oldest_in_progress() -> ObjectId {
    let before = SystemClock.now().as_millis() / 1_000
        - i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
    let seconds = u32::try_from(before).unwrap_or(0).to_be_bytes();
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds);
    ObjectId::from_bytes(bytes)
}

impl MongoPool {
    /// Delivers transfers that their nodes have not delivered.
    pub(super) async fn deliver_pending_transfers(
        &self,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let found = self.due_documents(TRANSFERS, now, MAX_DOCUMENTS).await?;
        let queue_ids: BTreeSet<i64> =
            found.iter().filter_map(|raw| raw.get_i64("queue_id").ok()).collect();
        let mut failed = None;
        for queue_id in queue_ids {
            failed = self.deliver_transfers(queue_id).await.err().or(failed);
        }
        for raw in &found {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let query = Query { filter: doc! { "_id": id }, sort: None, index: BY_ID, limit: 1 };
            let fields = Some(doc! { "_id": 1 });
            if self.0.collections.find_projected(TRANSFERS, query, fields).await?.is_empty() {
                swept.processed += 1;
            } else {
                self.postpone(TRANSFERS, id, now).await?;
            }
        }
        swept.more |= found.len() == MAX_DOCUMENTS && swept.processed > 0;
        failed.map_or(Ok(()), Err)
    }

    /// Handles abandoned buckets without positions: applies the journal that names them, and
    /// deletes those that were never committed.
    pub(super) async fn recover_unplaced_buckets(
        &self,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let filter = doc! {
            "due": { "$lte": now.as_millis() },
            "group_id": { "$exists": false },
            "_id": { "$lt": oldest_in_progress() },
        };
        let sort = Some(doc! { "due": 1 });
        let query = Query { filter, sort, index: BY_TIME, limit: MAX_DOCUMENTS };
        let fields = Some(doc! { "queue_id": 1 });
        for raw in self.0.collections.find_projected(BUCKETS, query, fields).await? {
            let id = raw.get_object_id("_id").map_err(unexpected)?;
            let queue_id = raw.get_i64("queue_id").map_err(unexpected)?;
            let document = self.0.collections.read_committed(queue_id).await?;
            let journal = document.map(|document| document.journal).unwrap_or_default();
            let names_it = |entry: &JournalEntry| entry.placements.iter().any(|it| it.bucket == id);
            if journal.iter().any(names_it) {
                apply_entries(&self.0.collections, queue_id, &journal, true).await?;
            } else {
                let filter =
                    doc! { "_id": id, "queue_id": queue_id, "group_id": { "$exists": false } };
                let delete: Document = doc! { "q": filter, "limit": 1, "hint": BY_ID };
                self.0.collections.delete(BUCKETS, vec![delete], false).await?;
            }
            swept.processed += 1;
        }
        Ok(())
    }
}
