//! What a node remembers of queues and groups.

use moka::sync::Cache;
use storage_traits::domain::{GroupName, Incarnation};

/// Maximum number of entries of each kind.
const CACHE_CAPACITY: u64 = 100_000;

/// The queue that a queue reference leads to, and the group if it is a group's.
#[derive(Debug, Clone)]
pub(super) struct ResolvedQueue {
    /// Incarnation in the ids of the messages.
    pub(super) queue: Incarnation,
    pub(super) group: Option<GroupName>,
}

/// What a node remembers of queues and groups.
pub(super) struct QueueCache {
    /// Groups never change their queue, so these entries are never wrong.
    resolved: Cache<Incarnation, ResolvedQueue>,
    /// How far a queue was claimed when it was last listed: a guess that each use verifies.
    cursors: Cache<Incarnation, i64>,
}

impl Default for QueueCache {
    fn default() -> Self {
        Self { resolved: Cache::new(CACHE_CAPACITY), cursors: Cache::new(CACHE_CAPACITY) }
    }
}

impl QueueCache {
    pub(super) fn resolved(&self, group: Incarnation) -> Option<ResolvedQueue> {
        self.resolved.get(&group)
    }

    pub(super) fn remember_resolved(&self, group: Incarnation, resolved: ResolvedQueue) {
        self.resolved.insert(group, resolved);
    }

    pub(super) fn cursor(&self, queue: Incarnation) -> Option<i64> {
        self.cursors.get(&queue)
    }

    pub(super) fn remember_cursor(&self, queue: Incarnation, cursor: i64) {
        if self.cursors.get(&queue) != Some(cursor) {
            self.cursors.insert(queue, cursor);
        }
    }
}
