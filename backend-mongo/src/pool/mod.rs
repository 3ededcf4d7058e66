//! The message pool.
//!
//! A queue is one document: its counters, those of its groups, and a short journal. Its messages
//! are stored in buckets of up to 64, one document each. The pool relies only on atomic updates of
//! single documents:
//!
//! - A **commit** is one update of the queue's document, conditional on its revision (optimistic
//!   concurrency). It adds an entry to the journal, with the changes to buckets, claims and ordering
//!   keys.
//! - The entry is **applied** afterwards, by the node that committed it or by the next node that
//!   needs the documents. Each document stores the last revision that was applied to it, so applying
//!   is idempotent.
//! - Documents are **inserted before** the commit that references them, and are invisible until it
//!   succeeds. What was deleted is never inserted again.
//! - A **reader** reads the queue's document first, and takes the journal into account.
//!
//! So there is no lock that a crashed node could hold and no transaction that could stay open. The
//! protocol is the same on one server, a replica set and shards.
//!
//! Operations on a queue that wait at the same time on a node share a commit (`executor.rs`). Posts
//! without ordering key, deduplication id or retention do not wait for them (`posts.rs`).

mod acknowledge;
mod append;
mod apply;
mod backfill;
mod bodies;
mod bucket;
mod cache;
mod claim;
mod claim_source;
mod claim_state;
mod clerk;
mod collections;
mod commit;
mod due;
mod events;
mod executor;
mod garbage;
mod group;
mod indexes;
mod letters;
mod loading;
mod maintenance;
mod message;
mod operation;
mod operation_queue;
mod ordering;
mod post_queue;
mod posts;
mod queue_document;
mod recovery;
mod redrive;
mod refresh;
mod shared;
mod side_documents;
mod stored_message;
mod sweep;
mod unit_of_work;
mod watch;
mod watch_tasks;
mod worker;

use std::sync::Arc;

use storage_traits::{
    Result,
    pool::{Durability, MessagePool},
};

use self::shared::Shared;
use crate::{options::MongoOptions, server::Server};

/// A [`MessagePool`] on MongoDB.
pub struct MongoPool(Arc<Shared>);

impl MongoPool {
    /// Opens a pool. If no server can be reached, each later call tries again to connect.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server can be reached but is
    /// unsupported: it is too old, or has other indexes under the names of the pool's.
    pub async fn open(options: MongoOptions) -> Result<Self> {
        let shared = Arc::new(Shared::new(Server::open(options).await?));
        if shared.collections.server.is_connected() {
            shared.ready().await?;
        }
        watch_tasks::start(&shared);
        Ok(Self(shared))
    }
}

impl Drop for MongoPool {
    fn drop(&mut self) {
        self.0.events.watches.stop();
    }
}

impl MessagePool for MongoPool {
    fn durability(&self) -> Durability {
        self.0.collections.server.durability()
    }
}
