//! How a worker learns what other nodes have committed to its queue, and recovers the commits of
//! nodes that crashed.

use std::collections::HashMap;

use mongodb::bson::oid::ObjectId;
use storage_traits::Result;

use super::{
    apply::apply_entries,
    cache::QueueCache,
    queue_document::{JournalEntry, Placement, QueueDocument},
    unit_of_work::UnitOfWork,
    worker::{LostMessages, Worker},
};

/// The placement of a bucket that was not found, with the commit id of its entry.
type MissingBucket = (i64, Placement);

impl Worker {
    /// Brings the cache up to date with the queue's document. Returns the first position whose
    /// bucket is not found.
    pub(super) async fn refresh(
        &mut self,
        document: Option<&QueueDocument>,
    ) -> Result<Option<i64>> {
        let Some(document) = document else {
            self.reset();
            return Ok(None);
        };
        if self.revision != Some(document.revision) {
            self.cache = QueueCache::default();
            // New buckets are found through the journal. Other changes have to be applied before
            // the documents are loaded: applied later, they would be rejected, since the commits of
            // this worker have a later revision.
            let changes = |entry: &&JournalEntry| !entry.is_plain_post();
            let entries: Vec<JournalEntry> =
                document.journal.iter().filter(changes).cloned().collect();
            apply_entries(&self.collections, self.queue_id, &entries, true).await?;
            self.revision = Some(document.revision);
            (self.tail, self.own_positions) = (document.tail, 0);
        }
        let (loaded, missing) = self.load_unplaced(document).await?;
        // Posts of other nodes whose placements were removed from the journal have to be looked
        // for.
        if document.tail - self.tail != loaded + self.own_positions {
            self.cache.loaded_up_to.due.clear();
        }
        (self.tail, self.own_positions) = (document.tail, 0);
        self.recover_stale_entries(document, &missing).await?;
        let first = |(commit_id, placement): &MissingBucket| {
            let is_recovered = self.recovered.contains(commit_id);
            let entry = document.journal.iter().find(|entry| entry.commit_id == *commit_id);
            entry.filter(|_| !is_recovered).map(|entry| placement.first(entry))
        };
        Ok(missing.iter().filter_map(first).min())
    }

    /// Loads the buckets that the journal names: they may not have their positions yet. Returns how
    /// many positions of the default group they cover, and which of them are not found.
    async fn load_unplaced(
        &mut self,
        document: &QueueDocument,
    ) -> Result<(i64, Vec<MissingBucket>)> {
        let (mut positions, mut missing) = (0, Vec::new());
        let is_unknown = |placement: &&Placement| {
            // The buckets of a deleted group are deleted too.
            !self.cache.contains(placement.bucket) && document.group(placement.group_id).is_some()
        };
        let unknown: Vec<ObjectId> = document
            .journal
            .iter()
            .flat_map(|entry| entry.placements.iter().filter(is_unknown).map(|it| it.bucket))
            .collect();
        if unknown.is_empty() {
            return Ok((positions, missing));
        }
        let unit = UnitOfWork::new(&self.collections, self.queue_id, None, &mut self.cache, None);
        let read = { unit }.read_by_id(&unknown).await?;
        let mut read: HashMap<_, _> = read.into_iter().map(|bucket| (bucket.id, bucket)).collect();
        for entry in &document.journal {
            for placement in entry.placements.iter().filter(|it| unknown.contains(&it.bucket)) {
                let Some(mut bucket) = read.remove(&placement.bucket) else {
                    missing.push((entry.commit_id, *placement));
                    continue;
                };
                (bucket.group_id, bucket.first) = (placement.group_id, placement.first(entry));
                positions += if placement.group_id == self.queue_id { placement.span } else { 0 };
                self.cache.add(bucket);
            }
        }
        Ok((positions, missing))
    }

    /// Applies the entries of nodes that have crashed. A bucket that such a node committed but
    /// never stored is replaced by a tombstone, and its messages are lost.
    async fn recover_stale_entries(
        &mut self,
        document: &QueueDocument,
        missing: &[MissingBucket],
    ) -> Result<()> {
        (self.recovered, self.lost) = (Vec::new(), Vec::new());
        let time = if missing.is_empty() {
            document.last_commit_at()
        } else {
            Some(self.collections.server.time().await?)
        };
        let stale = time.map(|time| document.stale_entries(time)).unwrap_or_default();
        if stale.is_empty() {
            return Ok(());
        }
        apply_entries(&self.collections, self.queue_id, &stale, true).await?;
        for entry in stale {
            let mut is_complete = true;
            for (_, placement) in missing.iter().filter(|(id, _)| *id == entry.commit_id) {
                let bucket = placement.bucket;
                if self.collections.insert_tombstone(self.queue_id, bucket).await? {
                    self.lost.push(LostMessages {
                        group_id: placement.group_id,
                        delayed: placement.delayed,
                        count: placement.span,
                    });
                } else {
                    // It was stored after all; the next refresh finds it.
                    is_complete = false;
                }
            }
            if is_complete {
                self.recovered.push(entry.commit_id);
            }
        }
        Ok(())
    }
}
