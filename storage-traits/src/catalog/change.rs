use async_trait::async_trait;

use crate::{Result, domain::QueueKey};

/// A position in the change feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeToken(i64);

impl ChangeToken {
    /// Takes the position that a catalog counts.
    pub const fn new(position: i64) -> Self {
        Self(position)
    }

    /// The position as the catalog counts it.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These queues were changed or deleted. A creation is no change: nobody may remember that a
    /// queue does not exist.
    Queues(Vec<QueueKey>),
    /// More than the feed remembers: forget all.
    Everything,
}

/// A piece of the change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// What changed, the same queue perhaps more than once.
    pub changed: Changed,
    /// Where to go on.
    pub next: ChangeToken,
}

/// How a node learns what other nodes changed, so that it can forget what it remembers.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// The changes after a position, oldest first, at most 1,000 of them; without a position,
    /// no changes and the present position. One cheap read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes>;
}
