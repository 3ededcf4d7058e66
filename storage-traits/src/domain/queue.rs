use std::fmt;

use super::{Incarnation, Metadata, ProjectId, QueueName, Timestamp};

/// Key of a queue in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// Project that owns the queue.
    pub project: ProjectId,
    /// Name of the queue within the project.
    pub name: QueueName,
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of project {}", self.name, self.project)
    }
}

/// Reference to one incarnation of a queue, by which a pool is called. Only the catalog issues it,
/// so a pool is never called for a queue whose project was not checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueRef {
    /// Key of the queue in the catalog.
    pub key: QueueKey,
    /// Incarnation of the queue. Pools store messages under it, so a reference to a deleted queue
    /// finds none.
    pub incarnation: Incarnation,
}

/// Queue as the catalog stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueRecord {
    /// Reference to the current incarnation of the queue.
    pub queue: QueueRef,
    /// Metadata as the project set them, without defaults.
    pub metadata: Metadata,
    /// Version of the metadata. Each update increases it and requires the version that was read
    /// (optimistic concurrency).
    pub version: i64,
    /// Time at which this incarnation was created.
    pub created_at: Timestamp,
}
