use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Limit, Page, Result,
    domain::{Metadata, ProjectId, QueueKey, QueueName, QueueRecord, QueueRef, Timestamp},
};

/// What became of [`QueueCatalog::create`].
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The queue, new or as it was.
    pub record: QueueRecord,
    /// Whether this call made it. Of several callers at once, exactly one sees `true`.
    pub new: bool,
}

/// Which queues of a project to list.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueFilter {
    /// Only names greater than this text; it need not name a queue.
    pub after: Option<String>,
    /// How many.
    pub limit: Limit,
    /// Only names that hold this text.
    pub name_contains: Option<String>,
    /// Only queues of which all of these are true.
    pub metadata: Vec<MetadataFilter>,
}

impl QueueFilter {
    /// Whether a queue passes, the marker and the limit aside.
    pub fn matches(&self, name: &QueueName, metadata: &Metadata) -> bool {
        self.name_contains.as_ref().is_none_or(|part| name.as_str().contains(part.as_str()))
            && self.metadata.iter().all(|filter| filter.matches(metadata))
    }
}

/// Equality on one stored key of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataFilter {
    /// The key.
    pub key: String,
    /// The value that it must have.
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

/// Queues and their metadata.
#[async_trait]
pub trait QueueCatalog: Send + Sync {
    /// Creates a queue, unless it exists; an existing one is not changed in any way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created>;

    /// Reads a queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>>;

    /// Lists queues of one project by name, ascending in byte order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>>;

    /// Counts the queues of one project.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn count(&self, project: &ProjectId) -> Result<u64>;

    /// Replaces the metadata of a queue, if it is still in the life and the version that `read`
    /// holds; answers the record as it is now.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](crate::StoreError::Conflict) if the metadata were changed since;
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if that life of the queue is over;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<QueueRecord>;

    /// Deletes a queue and answers what it was; deleting what is gone succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete(&self, key: &QueueKey, now: Timestamp) -> Result<Option<QueueRef>>;
}
