//! The control plane, in one collection. A document is one incarnation of a queue, with the time of
//! its last change, which is its position in the change feed. So a change and its position are one
//! atomic write, and writers do not block each other.

mod change_buffer;
mod changes;
mod queue_document;
mod queues;

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::{Collection, bson::doc};
use storage_traits::{Result, catalog::Catalog};
use tokio::sync::{Mutex, OnceCell};

use self::{change_buffer::ChangeBuffer, queue_document::QueueDocument};
use crate::{indexes, options::MongoOptions, server::Server};

/// A [`Catalog`] on MongoDB.
pub struct MongoCatalog {
    server: Arc<Server>,
    /// Empty until the indexes exist.
    ready: OnceCell<()>,
    /// The changes that were read. The lock is held while more are read.
    buffer: Mutex<ChangeBuffer>,
}

impl MongoCatalog {
    /// Opens a catalog. If no server can be reached, each later call tries again to connect.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server can be reached but is
    /// unsupported: it is too old, or has other indexes under the names of the catalog's.
    pub async fn open(options: MongoOptions) -> Result<Self> {
        let server = Server::open(options).await?;
        let buffer = Mutex::new(ChangeBuffer::default());
        let catalog = Self { server, ready: OnceCell::new(), buffer };
        if catalog.server.is_connected() {
            catalog.ready().await?;
        }
        Ok(catalog)
    }

    /// Creates the indexes, once.
    async fn ready(&self) -> Result<()> {
        let create = || indexes::ensure(&self.server, queue_document::INDEXES);
        self.ready.get_or_try_init(create).await.copied()
    }

    fn queues(&self) -> Collection<QueueDocument> {
        self.server.acked_durably(queue_document::QUEUES)
    }
}

#[async_trait]
impl Catalog for MongoCatalog {
    async fn check(&self) -> Result<()> {
        self.ready().await?;
        let no_queue = doc! { "_id": 0 };
        let read = async || {
            let queues = self.queues();
            queues.find_one(no_queue.clone()).hint(queue_document::by_id()).await
        };
        self.server.retry(read).await.map(drop)
    }

    async fn close(&self) {
        self.server.close().await;
    }
}
