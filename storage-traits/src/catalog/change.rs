use async_trait::async_trait;

use crate::{Result, domain::QueueKey};

/// Position in the change feed of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeToken(i64);

impl ChangeToken {
    /// Creates a token from a position, whose meaning the catalog defines.
    pub const fn new(position: i64) -> Self {
        Self(position)
    }

    /// Returns the position.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Changed queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These queues were updated or deleted. Creations are not reported: a node must not cache that
    /// a queue does not exist.
    Queues(Vec<QueueKey>),
    /// More changes than the feed keeps. The node empties its cache.
    Everything,
}

/// Consecutive part of the change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Changes of this part; a queue may occur more than once.
    pub changed: Changed,
    /// Position after this part.
    pub next: ChangeToken,
}

/// Feed of changes, by which a node removes from its cache the queues that other nodes changed.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// Returns the changes after a position, oldest first, at most 1,000 of them. Without a
    /// position, returns no changes and the current position. Costs one indexed read, since every
    /// node calls it about twice a second.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes>;
}
