//! Which queue is where, remembered: so that a post costs one round trip.

use std::sync::Arc;

use moka::{ops::compute::Op, sync::Cache};
use storage_traits::{
    Result, StoreError,
    catalog::{Catalog, ChangeToken, Changed},
    domain::{Metadata, QueueKey, QueueRecord, QueueRef, Timestamp},
    pool::MessagePool,
};

use super::metadata::Settings;

/// How many queues are remembered.
const REMEMBERED: u64 = 20_000;

/// A queue with its metadata read for use.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) record: QueueRecord,
    pub(super) settings: Settings,
}

impl Known {
    pub(super) const fn queue(&self) -> &QueueRef {
        &self.record.queue
    }
}

/// The catalog behind a cache. A queue that is missing is never remembered as missing; one that
/// was deleted elsewhere is found out by the pool, which does not know its incarnation any more.
pub(super) struct Directory {
    catalog: Arc<dyn Catalog>,
    pool: Arc<dyn MessagePool>,
    known: Cache<QueueKey, Arc<Known>>,
}

impl Directory {
    pub(super) fn new(catalog: Arc<dyn Catalog>, pool: Arc<dyn MessagePool>) -> Self {
        Self { catalog, pool, known: Cache::new(REMEMBERED) }
    }

    /// Looks a queue up, in memory if possible.
    pub(super) async fn find(&self, key: &QueueKey) -> Result<Option<Arc<Known>>> {
        if let Some(known) = self.known.get(key) {
            return Ok(Some(known));
        }
        Ok(self.catalog.get(key).await?.map(|record| self.remember(record)))
    }

    /// Looks a queue up and creates it if it is missing; says whether it did.
    pub(super) async fn find_or_create(
        &self,
        key: &QueueKey,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<(Arc<Known>, bool)> {
        if let Some(known) = self.find(key).await? {
            return Ok((known, false));
        }
        let created = self.catalog.create(key, metadata, now).await?;
        self.pool.open_queue(&created.record.queue).await?;
        Ok((self.remember(created.record), created.new))
    }

    /// Does something with a queue that the pool must know: creates what is missing, and heals
    /// what a crash or another node's deletion left behind.
    pub(super) async fn with_queue<T>(
        &self,
        key: &QueueKey,
        now: Timestamp,
        act: impl AsyncFn(Arc<Known>) -> Result<T>,
    ) -> Result<T> {
        let mut missing = None;
        for _ in 0..3 {
            let (known, _) = self.find_or_create(key, &Metadata::default(), now).await?;
            match act(Arc::clone(&known)).await {
                Err(error @ StoreError::NotFound { .. }) => {
                    self.reopen(&known).await?;
                    missing = Some(error);
                }
                result => return result,
            }
        }
        Err(missing.unwrap_or_else(|| StoreError::not_found("queue", key)))
    }

    /// The pool does not know the queue: opens it if the catalog still has it in this life.
    pub(super) async fn reopen(&self, known: &Known) -> Result<()> {
        let key = &known.queue().key;
        self.forget(key);
        match self.catalog.get(key).await? {
            Some(record) if record.queue == *known.queue() => {
                self.pool.open_queue(&record.queue).await
            }
            _ => Ok(()),
        }
    }

    /// Remembers a record, unless a later version of it is known already.
    pub(super) fn remember(&self, record: QueueRecord) -> Arc<Known> {
        let settings = Settings::of(&record.metadata);
        let known = Arc::new(Known { record, settings });
        let stays =
            |old: &Known| old.queue() == known.queue() && old.record.version > known.record.version;
        self.known
            .entry_by_ref(&known.queue().key)
            .and_compute_with(|old| match old {
                Some(entry) if stays(entry.value()) => Op::Nop,
                _ => Op::Put(Arc::clone(&known)),
            })
            .into_entry()
            .map_or_else(|| Arc::clone(&known), moka::Entry::into_value)
    }

    pub(super) fn forget(&self, key: &QueueKey) {
        self.known.invalidate(key);
    }

    /// Forgets what other nodes changed since `after`; answers where to go on.
    pub(super) async fn follow(&self, after: Option<ChangeToken>) -> Result<ChangeToken> {
        let changes = self.catalog.changes(after).await?;
        match changes.changed {
            Changed::Queues(keys) => keys.iter().for_each(|key| self.forget(key)),
            Changed::Everything => self.known.invalidate_all(),
        }
        Ok(changes.next)
    }
}
