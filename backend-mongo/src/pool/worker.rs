//! Computes and commits the units of work of one queue.

use std::{sync::Arc, time::Duration};

use storage_traits::{Result, StoreError, domain::Timestamp, random::jitter};

use super::{
    backfill::BackfillOp,
    bodies::{Bodies, BodyRef, Completion, Rebase, load_bodies},
    cache::{LoadedUpTo, QueueCache},
    collections::Collections,
    commit::{CommitOutcome, commit},
    events::EventSink,
    operation::{PendingOperation, pending},
    operation_queue::OperationQueue,
    queue_document::{JournalEntry, QueueDocument},
    unit_of_work::UnitOfWork,
};
use crate::error::{unavailable, unexpected};

/// How many documents the cache holds at most, between two units of work.
const CACHE_CAPACITY: usize = 512;
/// How many committed entries may be pending before the next unit of work waits.
const MAX_PENDING: usize = 8;
/// After how many changed messages a unit of work runs no more operations.
const MAX_CHANGED_MESSAGES: usize = 2_000;
/// How long to wait at most before a retry after a conflict, at first and after many of them.
const BACKOFF: Duration = Duration::from_millis(4);
const MAX_BACKOFF: Duration = Duration::from_millis(100);

type Operations = Vec<Box<dyn PendingOperation>>;

/// Ready and delayed messages of a group that were counted but never stored.
#[derive(Clone, Copy)]
pub(super) struct LostMessages {
    pub(super) group_id: i64,
    pub(super) delayed: i64,
    pub(super) count: i64,
}

pub(super) struct Worker {
    events: Arc<EventSink>,
    pub(super) collections: Collections,
    pub(super) queue_id: i64,
    operations: Arc<OperationQueue>,
    pub(super) cache: QueueCache,
    /// The revision at which the cache is valid.
    pub(super) revision: Option<i64>,
    /// The position up to which all posts are known.
    pub(super) tail: i64,
    /// How many positions this worker allocated since.
    pub(super) own_positions: i64,
    /// Commit ids of stale entries of other nodes that were applied here and can be removed from
    /// the journal.
    pub(super) recovered: Vec<i64>,
    /// What the next unit of work has to subtract from the counters.
    pub(super) lost: Vec<LostMessages>,
    /// Whether the last unit of work was a backfill.
    backfilled_last: bool,
}

impl Worker {
    pub(super) fn new(
        events: &Arc<EventSink>,
        collections: &Collections,
        queue_id: i64,
        operations: &Arc<OperationQueue>,
    ) -> Self {
        Self {
            events: Arc::clone(events),
            collections: collections.clone(),
            queue_id,
            operations: Arc::clone(operations),
            cache: QueueCache::default(),
            revision: None,
            tail: 0,
            own_positions: 0,
            recovered: Vec::new(),
            lost: Vec::new(),
            backfilled_last: false,
        }
    }

    /// Removes the entries that were applied from the journal.
    pub(super) async fn truncate_journal(&mut self) {
        let Some(applier) = self.operations.started_applier() else { return };
        applier.wait_until_pending_at_most(0).await;
        let done = applier.applied();
        if done.is_empty() || self.collections.server.is_closed() {
            return;
        }
        match self.collections.truncate_journal(self.queue_id, &done).await {
            Ok(()) => applier.mark_truncated(&done),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, queue.id = self.queue_id, "cannot truncate the journal");
            }
        }
    }

    /// Runs operations in one unit of work. If one of them makes it fail, each runs in its own.
    pub(super) async fn run_operations(&mut self, operations: Operations) {
        let Err((failure, operations)) = self.run_unit(operations).await else { return };
        let one_failed = operations.len() > 1 && !failure.outcome_unknown;
        if one_failed && matches!(failure.error, StoreError::Unexpected { .. }) {
            for operation in operations {
                if let Err((failure, operations)) = self.run_unit(vec![operation]).await {
                    fail(operations, &failure.error);
                }
            }
            return;
        }
        fail(operations, &failure.error);
    }

    /// Runs a unit of work, and repeats it after each conflict.
    async fn run_unit(
        &mut self,
        mut operations: Operations,
    ) -> std::result::Result<(), (Failure, Operations)> {
        let mut backoff = BACKOFF;
        let deadline = tokio::time::Instant::now() + self.collections.server.timeout();
        loop {
            let failure = match self.try_commit(&mut operations).await {
                Ok(true) => return Ok(()),
                Ok(false) if tokio::time::Instant::now() < deadline => None,
                Ok(false) => Some(unavailable("other nodes always commit first").into()),
                Err(failure) => Some(failure),
            };
            self.reset();
            for operation in &mut operations {
                operation.reset();
            }
            if let Some(failure) = failure {
                return Err((failure, operations));
            }
            wait_for_other_nodes(jitter(backoff)).await;
            backoff = MAX_BACKOFF.min(backoff * 2);
        }
    }

    /// Discards what is known of the queue.
    pub(super) fn reset(&mut self) {
        self.cache = QueueCache::default();
        self.revision = None;
        self.recovered.clear();
        self.lost.clear();
    }

    /// Computes and commits a unit of work; returns `false` on a conflict.
    async fn try_commit(
        &mut self,
        operations: &mut Operations,
    ) -> std::result::Result<bool, Failure> {
        let applier = self.operations.applier(&self.collections, self.queue_id);
        applier.wait_until_pending_at_most(MAX_PENDING).await;
        if self.cache.len() > CACHE_CAPACITY {
            applier.wait_until_pending_at_most(0).await;
            self.cache = QueueCache::default();
        }
        let document = self.collections.read_committed(self.queue_id).await?;
        let first_missing = self.refresh(document.as_ref()).await?;
        let groups = document.iter().flat_map(|document| &document.groups);
        let mut backfills =
            groups.filter_map(|(id, group)| Some((id.parse().ok()?, group.backfill?)));
        // Backfills and other operations alternate, so that neither starves.
        self.backfilled_last = !self.backfilled_last;
        if self.backfilled_last
            && let Some((group_id, backfill)) = backfills.next()
        {
            if first_missing.is_some_and(|missing| missing <= backfill.up_to) {
                return Ok(false);
            }
            let now = Timestamp::from_millis(backfill.requested_at);
            // No caller waits for the reply of this operation.
            let (operation, _reply) = pending(BackfillOp { group_id, now });
            let mut backfill = vec![operation];
            if !self.build_and_commit(document, first_missing, &mut backfill).await? {
                return Ok(false);
            }
            self.operations.put_back(std::mem::take(operations));
            return Ok(true);
        }
        self.build_and_commit(document, first_missing, operations).await
    }

    async fn build_and_commit(
        &mut self,
        document: Option<QueueDocument>,
        first_missing: Option<i64>,
        operations: &mut Operations,
    ) -> std::result::Result<bool, Failure> {
        let revision = document.as_ref().map(|document| document.revision);
        let mut unit = UnitOfWork::new(
            &self.collections,
            self.queue_id,
            document,
            &mut self.cache,
            first_missing,
        );
        for lost in self.lost.drain(..) {
            if unit.has_group(lost.group_id) {
                let group = unit.group(lost.group_id)?;
                group.delayed -= lost.delayed;
                group.ready -= lost.count - lost.delayed;
                unit.dirty = true;
            }
        }
        let result = run_all(&mut unit, operations).await;
        if first_missing.is_some() {
            unit.cache.loaded_up_to = LoadedUpTo::default();
        }
        // Documents that another node changed since the queue was read may contradict it. A commit
        // detects that by the revision; a result without a commit is checked here.
        let is_consistent = match &result {
            Ok(bodies) => bodies.is_none() || first_missing.is_none(),
            Err(error) => !matches!(error, StoreError::Unexpected { .. }),
        };
        if !is_consistent && self.collections.committed_revision(self.queue_id).await? != revision {
            return Ok(false);
        }
        let bodies = result?;
        let wanted = std::mem::take(&mut unit.wanted_bodies);
        if let (Some(bodies), false) = (&bodies, unit.dirty) {
            self.reply(operations, &Completion { bodies, rebase: Rebase::NONE });
            return Ok(true);
        }
        let applier = self.operations.applier(&self.collections, self.queue_id);
        let mut truncated = applier.applied();
        truncated.append(&mut self.recovered);
        let (committed, bodies) = if let Some(bodies) = bodies {
            (commit(&mut unit, &truncated).await, Ok(bodies))
        } else {
            tokio::join!(commit(&mut unit, &truncated), load_bodies(&self.collections, &wanted))
        };
        let outcome = committed.map_err(Failure::after_commit)?;
        let CommitOutcome::Committed(committed) = outcome else { return Ok(false) };
        let (document, entry) = *committed;
        applier.mark_truncated(&truncated);
        let rebase = adopt_committed(&mut unit, &document, &entry);
        self.own_positions += unit.allocated_positions();
        self.events.counters.add(unit.event_counts);
        self.events.publish(&unit, entry.revision);
        entry.emptied_buckets.iter().for_each(|id| self.cache.evict(*id));
        self.revision = Some(entry.revision);
        applier.send(entry);
        let bodies = bodies.map_err(Failure::after_commit)?;
        self.reply(operations, &Completion { bodies: &bodies, rebase });
        Ok(true)
    }

    /// Sends the replies of the operations that have finished, and puts the others back.
    fn reply(&self, operations: &mut Operations, commit: &Completion<'_>) {
        let unfinished = std::mem::take(operations).into_iter().filter_map(|it| it.finish(commit));
        self.operations.put_back(unfinished.collect());
    }
}

fn fail(operations: Operations, error: &StoreError) {
    for operation in operations {
        operation.fail(error.to_shared_copy());
    }
}

/// Runs operations. Returns the bodies that their callers get; `None` if those can be read while
/// the unit of work is committed.
async fn run_all(
    unit: &mut UnitOfWork<'_>,
    operations: &mut [Box<dyn PendingOperation>],
) -> Result<Option<Bodies>> {
    for operation in operations {
        operation.run(unit).await?;
        if unit.changed_messages > MAX_CHANGED_MESSAGES {
            // The others run in the next unit of work.
            break;
        }
    }
    if unit.dirty && !unit.read_bodies_before_commit {
        return Ok(None);
    }
    let bodies = load_bodies(&unit.collections, &unit.wanted_bodies).await?;
    let is_loaded = |body: &BodyRef| bodies.contains_key(body);
    if unit.wanted_bodies.iter().all(is_loaded) {
        Ok(Some(bodies))
    } else {
        Err(unexpected("a body is missing"))
    }
}

/// Why a unit of work failed.
struct Failure {
    error: StoreError,
    /// Whether it may have been committed all the same.
    outcome_unknown: bool,
}

impl Failure {
    fn after_commit(error: StoreError) -> Self {
        Self { error, outcome_unknown: true }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, outcome_unknown: false }
    }
}

/// Adds what a unit of work created to the cache, in the positions that the commit allocated.
/// Returns the correction of the positions that were assumed.
fn adopt_committed(
    unit: &mut UnitOfWork<'_>,
    document: &QueueDocument,
    entry: &JournalEntry,
) -> Rebase {
    let from = unit.base.as_ref().map_or(0, |document| document.tail) + 1;
    let by = entry.first_position - from;
    for mut new in std::mem::take(&mut unit.new_buckets) {
        unit.posted.insert(new.bucket.group_id);
        if !new.absolute {
            new.bucket.first += by;
        }
        unit.cache.add(new.bucket);
    }
    for id in &unit.dedup_records {
        if let Some(Some(record)) = unit.cache.dedup_records.get_mut(id)
            && record.sequence >= from
        {
            record.sequence += by;
        }
    }
    debug_assert!(document.revision >= entry.revision, "a commit raises the revision");
    Rebase { from, by }
}

#[expect(clippy::disallowed_methods, reason = "another node gets time to finish its commit")]
async fn wait_for_other_nodes(time: Duration) {
    tokio::time::sleep(time).await;
}
