use std::fmt;

use super::{Incarnation, Metadata, ProjectId, QueueName, Timestamp};

/// Which queue of which project: what the catalog is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// The tenant.
    pub project: ProjectId,
    /// The name within the tenant.
    pub name: QueueName,
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of project {}", self.name, self.project)
    }
}

/// One life of a queue: what a pool is asked for. It comes from the catalog alone, so a pool
/// cannot be asked for a queue without its tenant having been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueRef {
    /// Project and name.
    pub key: QueueKey,
    /// Which life of the queue. Pools file messages under it; a reference that outlived its queue
    /// finds nothing.
    pub incarnation: Incarnation,
}

/// What the catalog holds of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueRecord {
    /// The queue in its present life.
    pub queue: QueueRef,
    /// As its owner set it; no defaults are filled in.
    pub metadata: Metadata,
    /// Raised by each change of the metadata; compared when they are changed again.
    pub version: i64,
    /// When this life began.
    pub created_at: Timestamp,
}
