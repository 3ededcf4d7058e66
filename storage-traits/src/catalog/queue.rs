use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Limit, Page, Result,
    domain::{Metadata, ProjectId, QueueKey, QueueName, QueueRecord, QueueRef, Timestamp},
};

/// Result of [`QueueCatalog::create`].
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The new queue, or the existing one unchanged.
    pub record: QueueRecord,
    /// Whether this call created it. Exactly one of several concurrent callers gets `true`.
    pub new: bool,
}

/// Selection of the queues that [`QueueCatalog::list`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueFilter {
    /// Marker: only queues whose names are greater in byte order. It need not be the name of a
    /// queue.
    pub after: Option<String>,
    /// Greatest number of queues in the page.
    pub limit: Limit,
    /// Only queues whose names contain this text, compared exactly.
    pub name_contains: Option<String>,
    /// Only queues that match all of these.
    pub metadata: Vec<MetadataFilter>,
}

impl QueueFilter {
    /// Returns whether a queue matches the filters; ignores the marker and the limit.
    pub fn matches(&self, name: &QueueName, metadata: &Metadata) -> bool {
        self.name_contains.as_ref().is_none_or(|part| name.as_str().contains(part.as_str()))
            && self.metadata.iter().all(|filter| filter.matches(metadata))
    }
}

/// Condition that a key of the metadata has a value (Zaqar v2 API, list queues). Numbers are
/// compared by value. Defaults that the API shows are not stored, and so do not match.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataFilter {
    /// Key of the metadata.
    pub key: String,
    /// Value that the key must have.
    pub value: Value,
}

impl MetadataFilter {
    fn matches(&self, metadata: &Metadata) -> bool {
        metadata.as_map().get(&self.key).is_some_and(|stored| match (&self.value, stored) {
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (a, b) => a == b,
        })
    }
}

/// Queues and their metadata. Names are unique within a project.
#[async_trait]
pub trait QueueCatalog: Send + Sync {
    /// Creates a queue with a new incarnation. A queue that exists is returned and not changed in
    /// any way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created>;

    /// Returns a queue; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>>;

    /// Lists queues of one project by name, ascending in byte order. A page is short only at the
    /// end of the list.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>>;

    /// Counts the queues of one project.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn count(&self, project: &ProjectId) -> Result<u64>;

    /// Replaces the metadata of a queue if its incarnation and version are still those of `read`
    /// (optimistic concurrency). Returns the new record, with a greater version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](crate::StoreError::Conflict) if the metadata were changed after
    /// `read`; [`StoreError::NotFound`](crate::StoreError::NotFound) if that incarnation was
    /// deleted; [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be
    /// reached.
    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<QueueRecord>;

    /// Deletes a queue and returns the deleted incarnation; `None` if the queue does not exist. Its
    /// messages stay in the pool until the caller drops the incarnation there
    /// ([`drop_queue`](crate::pool::PoolMaintenance::drop_queue)).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete(&self, key: &QueueKey, now: Timestamp) -> Result<Option<QueueRef>>;
}
