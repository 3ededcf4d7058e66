//! Applies journal entries to buckets, claims, ordering keys and deduplication records.
//!
//! Applying an entry is idempotent: each update is guarded by `applied_revision`, so any node may
//! apply it again, late. No document is ever inserted again after it was deleted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_traits::Result;
use tokio::sync::{mpsc, watch};

use super::{
    bucket::{BucketChange, position_fields},
    collections::Collections,
    indexes::{BUCKETS, BY_ID, CLAIMS, DEDUPLICATION, ORDERING_KEYS},
    queue_document::{JournalEntry, Placement},
};
use crate::error::unexpected;

/// How many entries are applied together.
const MAX_BATCH: usize = 32;
/// How long to wait after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Applies entries of a journal, in order.
pub(super) async fn apply_entries(
    collections: &Collections,
    queue_id: i64,
    entries: &[JournalEntry],
    durable: bool,
) -> Result<()> {
    let mut buckets: Vec<Document> = Vec::new();
    let mut deleted = Vec::new();
    let (mut claims, mut keys, mut dedup_records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut changes, mut last) = (MergedChanges::default(), None);
    for entry in entries {
        buckets.extend(placement_updates(queue_id, entry));
        // Entries between two that are not consecutive were applied before, and may have changed
        // what the first one changed: the second must not be merged into it.
        if !entry.is_plain_post()
            && last.replace(entry.revision).is_some_and(|last| last + 1 != entry.revision)
        {
            buckets.extend(std::mem::take(&mut changes).updates(queue_id));
        }
        entry.changes.iter().for_each(|change| changes.add(change, entry.revision));
        entry.emptied_buckets.iter().for_each(|id| changes.discard(*id));
        let delete =
            |id| doc! { "q": { "_id": id, "queue_id": queue_id }, "limit": 1, "hint": BY_ID };
        deleted.extend(entry.emptied_buckets.iter().map(delete));
        for claim in &entry.claims {
            let mut set = claim.clone();
            let id = set.remove("_id");
            set.insert("applied_revision", entry.revision);
            let older = doc! { "$lt": entry.revision };
            let query = doc! { "_id": id, "queue_id": queue_id, "applied_revision": older };
            claims.push(doc! { "q": query, "u": { "$set": set }, "hint": BY_ID });
        }
        for key in &entry.keys {
            keys.push(replace_older(queue_id, key.clone(), entry.revision, Replace::Older)?);
        }
        for record in &entry.dedup_records {
            let mut record = record.clone();
            let offset = record.get_i64("offset").map_err(unexpected)?;
            record.remove("offset");
            record.insert("sequence", entry.first_position + offset);
            let update = replace_older(queue_id, record, entry.revision, Replace::Older)?;
            dedup_records.push(update);
        }
    }
    buckets.extend(changes.updates(queue_id));
    let in_buckets = async {
        collections.update(BUCKETS, buckets, durable).await?;
        collections.delete(BUCKETS, deleted, durable).await
    };
    tokio::try_join!(
        in_buckets,
        collections.update(CLAIMS, claims, durable),
        collections.update(ORDERING_KEYS, keys, durable),
        collections.update(DEDUPLICATION, dedup_records, durable),
    )?;
    Ok(())
}

/// Changes of buckets by consecutive entries, merged into one update per bucket.
#[derive(Default)]
struct MergedChanges {
    order: Vec<ObjectId>,
    /// The fields to set and to unset, and the last revision.
    changes: HashMap<ObjectId, (Document, Document, i64)>,
}

impl MergedChanges {
    fn add(&mut self, change: &BucketChange, revision: i64) {
        let (set, unset, last) = self.changes.entry(change.bucket).or_insert_with(|| {
            self.order.push(change.bucket);
            Default::default()
        });
        for (field, value) in &change.set {
            unset.remove(field);
            set.insert(field, value.clone());
        }
        for field in &change.unset {
            set.remove(field);
            unset.insert(field, "");
        }
        *last = revision;
    }

    fn discard(&mut self, bucket: ObjectId) {
        self.changes.remove(&bucket);
    }

    fn updates(mut self, queue_id: i64) -> Vec<Document> {
        let mut updates = Vec::with_capacity(self.changes.len());
        for bucket in self.order {
            let Some((mut set, unset, revision)) = self.changes.remove(&bucket) else { continue };
            set.insert("applied_revision", revision);
            let mut update = doc! { "$set": set };
            if !unset.is_empty() {
                update.insert("$unset", unset);
            }
            let older = doc! { "$lt": revision };
            let query = doc! { "_id": bucket, "queue_id": queue_id, "applied_revision": older };
            updates.push(doc! { "q": query, "u": update, "hint": BY_ID });
        }
        updates
    }
}

/// Returns the updates that give the new buckets of an entry their positions.
pub(super) fn placement_updates(queue_id: i64, entry: &JournalEntry) -> Vec<Document> {
    let update = |it: &Placement| {
        let span = u32::try_from(it.span).unwrap_or(0);
        doc! {
            "q": { "_id": it.bucket, "queue_id": queue_id, "first": { "$exists": false } },
            "u": { "$set": position_fields(it.group_id, it.first(entry), span) },
            "hint": BY_ID,
        }
    };
    entry.placements.iter().map(update).collect()
}

/// Which stored documents [`replace_older`] replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    /// Those of an earlier revision.
    Older,
    /// Those of the same revision too.
    SameRevision,
}

/// Returns an upsert of a document, unless a document of a later revision is stored.
pub(super) fn replace_older(
    queue_id: i64,
    mut document: Document,
    revision: i64,
    replace: Replace,
) -> Result<Document> {
    let id = document.get("_id").cloned().ok_or_else(|| unexpected("a document has no id"))?;
    document.insert("applied_revision", revision);
    let operator = if replace == Replace::SameRevision { "$lte" } else { "$lt" };
    let query =
        doc! { "_id": id, "queue_id": queue_id, "applied_revision": { operator: revision } };
    Ok(doc! { "q": query, "u": document, "upsert": true, "hint": BY_ID })
}

/// Applies the entries that this node commits to one queue, in the background.
pub(super) struct JournalApplier {
    entries: mpsc::UnboundedSender<JournalEntry>,
    /// How many entries are not applied yet.
    pending: watch::Sender<usize>,
    /// Commit ids of entries that are applied durably and can be removed from the journal.
    applied: Arc<Mutex<Vec<i64>>>,
}

impl JournalApplier {
    pub(super) fn start(collections: &Collections, queue_id: i64) -> Self {
        let (entries, queue) = mpsc::unbounded_channel();
        let applier = Self { entries, pending: watch::Sender::new(0), applied: Arc::default() };
        let (pending, done) = (applier.pending.clone(), Arc::clone(&applier.applied));
        collections.server.spawn(run(collections.clone(), queue_id, queue, pending, done));
        applier
    }

    pub(super) fn send(&self, entry: JournalEntry) {
        self.pending.send_modify(|pending| *pending += 1);
        // The task ends with the executor, or with the pool.
        if self.entries.send(entry).is_err() {
            self.pending.send_modify(|pending| *pending -= 1);
        }
    }

    /// Waits until no more than `max` entries are pending.
    pub(super) async fn wait_until_pending_at_most(&self, max: usize) {
        // `self` holds the sender, so the channel stays open.
        let _ = self.pending.subscribe().wait_for(|pending| *pending <= max).await;
    }

    /// Returns the commit ids of the entries that can be removed from the journal.
    pub(super) fn applied(&self) -> Vec<i64> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets entries that were removed from the journal.
    pub(super) fn mark_truncated(&self, commit_ids: &[i64]) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.retain(|commit_id| !commit_ids.contains(commit_id));
    }
}

#[expect(clippy::disallowed_methods, reason = "a failed write may succeed a little later")]
async fn wait_before_retry() {
    tokio::time::sleep(RETRY_DELAY).await;
}

async fn run(
    collections: Collections,
    queue_id: i64,
    mut queue: mpsc::UnboundedReceiver<JournalEntry>,
    pending: watch::Sender<usize>,
    applied: Arc<Mutex<Vec<i64>>>,
) {
    let mut entries = Vec::new();
    while queue.recv_many(&mut entries, MAX_BATCH).await > 0 {
        while let Err(error) = apply_entries(&collections, queue_id, &entries, true).await {
            if collections.server.is_closed() {
                break;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                queue.id = queue_id,
                "cannot apply committed changes; will retry"
            );
            wait_before_retry().await;
        }
        let commit_ids = entries.iter().map(|entry| entry.commit_id);
        if !collections.server.is_closed() {
            applied.lock().unwrap_or_else(PoisonError::into_inner).extend(commit_ids);
        }
        pending.send_modify(|pending| *pending -= entries.len());
        entries.clear();
    }
}
