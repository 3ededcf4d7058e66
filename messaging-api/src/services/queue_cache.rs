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
const CACHE_CAPACITY: u64 = 20_000;

/// A queue with its metadata read for use.
#[derive(Debug, Clone)]
pub(super) struct CachedQueue {
    pub(super) record: QueueRecord,
    pub(super) settings: Settings,
}

impl CachedQueue {
    pub(super) const fn queue(&self) -> &QueueRef {
        &self.record.queue
    }
}

/// The catalog behind a cache. A queue that is missing is never remembered as missing; one that
/// was deleted elsewhere is found out by the pool, which does not know its incarnation any more.
pub(super) struct QueueCache {
    catalog: Arc<dyn Catalog>,
    pool: Arc<dyn MessagePool>,
    cached: Cache<QueueKey, Arc<CachedQueue>>,
}

impl QueueCache {
    pub(super) fn new(catalog: Arc<dyn Catalog>, pool: Arc<dyn MessagePool>) -> Self {
        Self { catalog, pool, cached: Cache::new(CACHE_CAPACITY) }
    }

    /// Looks a queue up, in memory if possible.
    pub(super) async fn find(&self, key: &QueueKey) -> Result<Option<Arc<CachedQueue>>> {
        if let Some(cached) = self.cached.get(key) {
            return Ok(Some(cached));
        }
        Ok(self.catalog.get(key).await?.map(|record| self.insert(record)))
    }

    /// Looks a queue up and creates it if it is missing; says whether it did.
    pub(super) async fn find_or_create(
        &self,
        key: &QueueKey,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<(Arc<CachedQueue>, bool)> {
        if let Some(cached) = self.find(key).await? {
            return Ok((cached, false));
        }
        let created = self.catalog.create(key, metadata, now).await?;
        self.pool.open_queue(&created.record.queue).await?;
        Ok((self.insert(created.record), created.new))
    }

    /// Does something with a queue that the pool must know: creates what is missing, and heals
    /// what a crash or another node's deletion left behind.
    pub(super) async fn with_queue<T>(
        &self,
        key: &QueueKey,
        now: Timestamp,
        act: impl AsyncFn(Arc<CachedQueue>) -> Result<T>,
    ) -> Result<T> {
        let mut missing = None;
        for _ in 0..3 {
            let (cached, _) = self.find_or_create(key, &Metadata::default(), now).await?;
            match act(Arc::clone(&cached)).await {
                Err(error @ StoreError::NotFound { .. }) => {
                    self.reopen(&cached).await?;
                    missing = Some(error);
                }
                result => return result,
            }
        }
        Err(missing.unwrap_or_else(|| StoreError::not_found("queue", key)))
    }

    /// The pool does not know the queue: opens it if the catalog still has it in this life.
    pub(super) async fn reopen(&self, cached: &CachedQueue) -> Result<()> {
        let key = &cached.queue().key;
        self.invalidate(key);
        match self.catalog.get(key).await? {
            Some(record) if record.queue == *cached.queue() => {
                self.pool.open_queue(&record.queue).await
            }
            _ => Ok(()),
        }
    }

    /// Remembers a record, unless a later version of it is cached already.
    pub(super) fn insert(&self, record: QueueRecord) -> Arc<CachedQueue> {
        let settings = Settings::of(&record.metadata);
        let cached = Arc::new(CachedQueue { record, settings });
        let stays = |old: &CachedQueue| {
            old.queue() == cached.queue() && old.record.version > cached.record.version
        };
        self.cached
            .entry_by_ref(&cached.queue().key)
            .and_compute_with(|old| match old {
                Some(entry) if stays(entry.value()) => Op::Nop,
                _ => Op::Put(Arc::clone(&cached)),
            })
            .into_entry()
            .map_or_else(|| Arc::clone(&cached), moka::Entry::into_value)
    }

    pub(super) fn invalidate(&self, key: &QueueKey) {
        self.cached.invalidate(key);
    }

    /// Forgets what other nodes changed since `after`; answers where to go on.
    pub(super) async fn apply_changes(&self, after: Option<ChangeToken>) -> Result<ChangeToken> {
        let changes = self.catalog.changes(after).await?;
        match changes.changed {
            Changed::Queues(keys) => keys.iter().for_each(|key| self.invalidate(key)),
            Changed::Everything => self.cached.invalidate_all(),
        }
        Ok(changes.next)
    }
}
