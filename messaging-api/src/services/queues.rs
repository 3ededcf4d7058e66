//! Queues: create, list, describe, change, delete.

use serde_json::{Map, Value};
use storage_traits::{
    Limit, Page, StoreError,
    catalog::{MetadataFilter, QueueFilter},
    domain::{Metadata, ProjectId, QueueKey, QueueName},
    pool::Stats,
};

use super::{
    context::Services,
    error::{Error, Result},
    metadata,
    patch::{self, PatchOperation},
};

/// How many times an update is attempted when concurrent updates conflict with it.
const ATTEMPTS: usize = 16;

/// Which queues to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueListing {
    pub marker: Option<String>,
    pub limit: Option<i64>,
    pub name: Option<String>,
    pub metadata: Vec<MetadataFilter>,
}

impl Services {
    /// Creates a queue. Returns `true` if it is new. An existing queue is not changed.
    pub(crate) async fn create_queue(
        &self,
        key: &QueueKey,
        metadata: Map<String, Value>,
    ) -> Result<bool> {
        metadata::check(&metadata, &self.config.limits).map_err(Error::InvalidValue)?;
        self.queues.invalidate(key);
        let (_, new) = self.queues.find_or_create(key, &metadata.into(), self.now()).await?;
        Ok(new)
    }

    /// Returns the metadata of a queue with the defaults filled in. A missing queue has the
    /// defaults.
    pub(crate) async fn queue_metadata(&self, key: &QueueKey) -> Result<Map<String, Value>> {
        let stored = self.catalog.get(key).await?.map(|record| record.metadata);
        Ok(self.shown(&stored.unwrap_or_default()))
    }

    fn shown(&self, metadata: &Metadata) -> Map<String, Value> {
        metadata::with_defaults(metadata, &self.config.limits)
    }

    /// Lists the queues of a project, with their metadata and the defaults filled in.
    pub(crate) async fn list_queues(
        &self,
        project: &ProjectId,
        listing: QueueListing,
    ) -> Result<Page<(QueueName, Map<String, Value>)>> {
        let limit = page_limit(listing.limit, self.config.limits.max_queues_per_page)?;
        let filter = QueueFilter {
            after: listing.marker,
            limit,
            name_contains: listing.name,
            metadata: listing.metadata,
        };
        let page = self.catalog.list(project, &filter).await?;
        Ok(page.map(|record| (record.queue.key.name, self.shown(&record.metadata))))
    }

    /// Counts the queues of a project.
    pub(crate) async fn count_queues(&self, project: &ProjectId) -> Result<u64> {
        Ok(self.catalog.count(project).await?)
    }

    /// Patches metadata, with optimistic retries: a concurrent update is never overwritten. Returns
    /// the metadata with the defaults filled in.
    pub(crate) async fn patch_queue(
        &self,
        key: &QueueKey,
        operations: &[PatchOperation],
    ) -> Result<Map<String, Value>> {
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let record =
                self.catalog.get(key).await?.ok_or_else(|| {
                    Error::NotFound(format!("the queue {} does not exist", key.name))
                })?;
            let changed = patch::apply(record.metadata.as_map(), operations)?;
            metadata::check(&changed, &self.config.limits).map_err(Error::InvalidPatch)?;
            match self.catalog.update(&record, &changed.into(), self.now()).await {
                Ok(record) => {
                    let cached = self.queues.insert(record);
                    return Ok(self.shown(&cached.record.metadata));
                }
                Err(error @ StoreError::Conflict { .. }) => conflict = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict.map_or(Error::Overloaded, Error::Store))
    }

    /// Deletes a queue with its messages. Succeeds if it does not exist.
    pub(crate) async fn delete_queue(&self, key: &QueueKey) -> Result<()> {
        let (services, key) = (self.clone(), key.clone());
        // A task of its own: both steps are done even if the request is dropped between them.
        let task = tokio::spawn(async move {
            // The deletion takes effect in the catalog: no look-up finds the queue from here on.
            let deleted = services.catalog.delete(&key, services.now()).await;
            services.queues.invalidate(&key);
            match deleted? {
                Some(queue) => services.pool.drop_queue(&queue).await,
                None => Ok(()),
            }
        });
        task.await.map_or(Err(Error::Overloaded), |done| Ok(done?))
    }

    /// Counts the messages of a queue. A missing queue has none.
    pub(crate) async fn queue_stats(&self, key: &QueueKey) -> Result<Stats> {
        match self.queues.find(key).await? {
            Some(cached) => Ok(self.pool.stats(cached.queue(), self.now()).await?),
            None => Ok(Stats::default()),
        }
    }

    /// Deletes all messages of a queue and its groups that are not claimed.
    pub(crate) async fn purge_messages(&self, key: &QueueKey) -> Result<()> {
        if let Some(cached) = self.queues.find(key).await? {
            self.pool.purge(cached.queue(), self.now()).await?;
            for group in self.all_groups(&cached).await? {
                self.pool.purge(&group.as_queue, self.now()).await?;
            }
        }
        Ok(())
    }
}

/// The page size of a list without a limit (Zaqar v2 API, configuration).
const DEFAULT_PAGE: u32 = 10;

/// Checks the limit of a page, and fills in the default.
pub(super) fn page_limit(asked: Option<i64>, max: u32) -> Result<Limit> {
    let default = DEFAULT_PAGE.min(max);
    asked
        .map_or(Some(default), |limit| u32::try_from(limit).ok().filter(|limit| *limit <= max))
        .and_then(Limit::new)
        .ok_or_else(|| Error::InvalidValue(format!("the limit must be 1 to {max}")))
}
