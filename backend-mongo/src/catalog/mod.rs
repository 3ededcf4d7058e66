//! The control plane. One collection holds everything: a document is one life of a queue, and when
//! it was changed last is in the same document. So a change and its place in the change feed are
//! one atomic write, and no writer waits for another.

mod changes;
mod life;
mod queues;
mod ring;

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::{Collection, bson::doc};
use storage_traits::{Result, catalog::Catalog};
use tokio::sync::{Mutex, OnceCell};

use self::{life::Life, ring::Ring};
use crate::{indexes, options::MongoOptions, server::Server};

/// A [`Catalog`] on MongoDB.
pub struct MongoCatalog {
    server: Arc<Server>,
    /// Empty until the indexes are there.
    ready: OnceCell<()>,
    /// What is known of the changes; whoever reads more of them holds it.
    ring: Mutex<Ring>,
}

impl MongoCatalog {
    /// Connects, if a server can be reached: one that cannot is tried again whenever something is
    /// asked of the catalog.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server can be reached but is not
    /// fit: it is too old, or has other indexes where the catalog makes its own.
    pub async fn open(options: MongoOptions) -> Result<Self> {
        let server = Server::open(options).await?;
        let ring = Mutex::new(Ring::default());
        let catalog = Self { server, ready: OnceCell::new(), ring };
        if catalog.server.was_reached() {
            catalog.ready().await?;
        }
        Ok(catalog)
    }

    /// Makes the indexes, once.
    async fn ready(&self) -> Result<()> {
        let make = || indexes::ensure(&self.server, &life::INDEXES);
        self.ready.get_or_try_init(make).await.copied()
    }

    fn queues(&self) -> Collection<Life> {
        self.server.durable(life::QUEUES)
    }
}

#[async_trait]
impl Catalog for MongoCatalog {
    async fn check(&self) -> Result<()> {
        self.ready().await?;
        let nobody = doc! { "_id": 0 };
        let read = async || {
            let queues = self.queues();
            queues.find_one(nobody.clone()).hint(life::by_id()).await
        };
        self.server.retry(read).await.map(drop)
    }

    async fn close(&self) {
        self.server.close().await;
    }
}
