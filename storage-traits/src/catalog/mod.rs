//! The control plane: which queues there are, and what their owners set for them.

mod change;
mod queue;

use async_trait::async_trait;

pub use change::{ChangeFeed, ChangeToken, Changed, Changes};
pub use queue::{Created, MetadataFilter, QueueCatalog, QueueFilter};

use crate::Result;

/// Everything a control plane does.
#[async_trait]
pub trait Catalog: QueueCatalog + ChangeFeed {
    /// Answers if the store can be read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if it cannot.
    async fn check(&self) -> Result<()>;

    /// Finishes what is under way and lets go of the store. Calls after it fail.
    async fn close(&self);
}
