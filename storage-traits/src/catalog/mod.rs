//! The control plane: queues, their metadata, and the feed of their changes.

mod change;
mod queue;

use async_trait::async_trait;

pub use change::{ChangeFeed, ChangeToken, Changed, Changes};
pub use queue::{Created, MetadataFilter, QueueCatalog, QueueFilter};

use crate::Result;

/// Control plane: all traits that a catalog implements.
#[async_trait]
pub trait Catalog: QueueCatalog + ChangeFeed {
    /// Checks that the store can be read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if it cannot.
    async fn check(&self) -> Result<()>;

    /// Waits for calls in progress and closes the connections to the store. Later calls return
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable).
    async fn close(&self);
}
