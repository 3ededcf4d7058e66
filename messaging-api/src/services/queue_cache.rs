//! A cache of queues in front of the catalog, so that a post costs one round trip.

use std::sync::Arc;

use moka::{ops::compute::Op, sync::Cache};
use storage_traits::{
    Result, StoreError,
    catalog::{Catalog, ChangeToken, Changed},
    domain::{Metadata, QueueKey, QueueRecord, QueueRef, Timestamp},
    pool::MessagePool,
};

use super::metadata::Settings;

/// How many queues are cached.
const CACHE_CAPACITY: u64 = 20_000;

/// A queue with its metadata in parsed form.
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

/// The catalog behind a cache. The absence of a queue is never cached. A cached queue that another
/// node has deleted is detected by the pool, which refuses its incarnation.
pub(super) struct QueueCache {
    catalog: Arc<dyn Catalog>,
    pool: Arc<dyn MessagePool>,
    cache: Cache<QueueKey, Arc<CachedQueue>>,
}

impl QueueCache {
    pub(super) fn new(catalog: Arc<dyn Catalog>, pool: Arc<dyn MessagePool>) -> Self {
        Self { catalog, pool, cache: Cache::new(CACHE_CAPACITY) }
    }

    /// Looks up a queue, in the cache first.
    pub(super) async fn find(&self, key: &QueueKey) -> Result<Option<Arc<CachedQueue>>> {
        if let Some(cached) = self.cache.get(key) {
            return Ok(Some(cached));
        }
        Ok(self.catalog.get(key).await?.map(|record| self.insert(record)))
    }

    /// Looks up a queue and creates it if it is missing. The flag says whether it was created.
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

    /// Runs an operation on a queue, which is created if it is missing. Repairs the state that a
    /// crash or a deletion by another node left, and tries again.
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

    /// Opens a queue in a pool that does not know it, if the catalog still has this incarnation.
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

    /// Caches a record, unless a later version of it is cached already.
    pub(super) fn insert(&self, record: QueueRecord) -> Arc<CachedQueue> {
        let settings = Settings::parse(&record.metadata);
        let cached = Arc::new(CachedQueue { record, settings });
        let is_newer = |old: &CachedQueue| {
            old.queue() == cached.queue() && old.record.version > cached.record.version
        };
        self.cache
            .entry_by_ref(&cached.queue().key)
            .and_compute_with(|old| match old {
                Some(entry) if is_newer(entry.value()) => Op::Nop,
                _ => Op::Put(Arc::clone(&cached)),
            })
            .into_entry()
            .map_or_else(|| Arc::clone(&cached), moka::Entry::into_value)
    }

    /// Removes a queue from the cache.
    pub(super) fn invalidate(&self, key: &QueueKey) {
        self.cache.invalidate(key);
    }

    /// Invalidates the queues that changed since `after`. Returns the token to continue from.
    pub(super) async fn apply_changes(&self, after: Option<ChangeToken>) -> Result<ChangeToken> {
        let changes = self.catalog.changes(after).await?;
        match changes.changed {
            Changed::Queues(keys) => keys.iter().for_each(|key| self.invalidate(key)),
            Changed::Everything => self.cache.invalidate_all(),
        }
        Ok(changes.next)
    }
}
