//! The state that all calls of a pool, and its background tasks, share.

use std::sync::Arc;

use moka::sync::Cache;
use mongodb::bson::doc;
use storage_traits::{
    Result,
    domain::{ClientId, NewMessage, Posted, QueueRef, Timestamp},
};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    bodies::Reply,
    collections::{Collections, Query},
    events::EventSink,
    executor::Executors,
    indexes::{BY_GROUP, BY_ID, INDEXES, QUEUES},
    operation::Operation,
    posts::Posts,
};
use crate::{indexes, server::Server};

/// For how many groups the cache knows the queue.
const CACHE_CAPACITY: u64 = 100_000;

pub(super) struct Shared {
    pub(super) collections: Collections,
    /// Empty until the indexes exist.
    indexes_ready: OnceCell<()>,
    executors: Arc<Executors>,
    posts: Arc<Posts>,
    pub(super) events: Arc<EventSink>,
    /// The queue of each group, which never changes.
    queue_of_group: Cache<i64, i64>,
}

impl Shared {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self {
            collections: Collections { server },
            indexes_ready: OnceCell::new(),
            executors: Arc::default(),
            posts: Arc::default(),
            events: Arc::default(),
            queue_of_group: Cache::new(CACHE_CAPACITY),
        }
    }

    /// Creates the indexes, once.
    pub(super) async fn ready(&self) -> Result<()> {
        let create = || indexes::ensure(&self.collections.server, INDEXES);
        self.indexes_ready.get_or_try_init(create).await.copied()
    }

    /// Runs an operation on a queue.
    pub(super) async fn run<O: Operation>(
        &self,
        queue_id: i64,
        operation: O,
    ) -> Result<<O::Reply as Reply>::Complete> {
        self.ready().await?;
        self.executors.run(&self.events, &self.collections, queue_id, operation).await
    }

    /// Stores plain posts; returns `None` if there is no such queue.
    pub(super) async fn store_posts(
        &self,
        queue_id: i64,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Option<Vec<Posted>>> {
        self.ready().await?;
        let Self { posts, events, collections, .. } = self;
        posts.store(events, collections, queue_id, client, messages, now).await
    }

    /// Waits until all that this node committed to a queue is applied.
    pub(super) async fn flush(&self, queue_id: i64) {
        self.executors.flush(queue_id).await;
    }

    /// Waits until all that this node committed is applied, for as long as a call may take.
    pub(super) async fn flush_all(&self) {
        let Self { executors, posts, events, collections, .. } = self;
        let flush = async {
            posts.flush(events, collections).await;
            executors.flush_all().await;
        };
        // What is left is applied later, or by another node.
        if timeout(collections.server.timeout(), flush).await.is_err() {
            tracing::warn!("committed changes are not applied yet; another node will apply them");
        }
    }

    /// Applies what was committed, and disconnects.
    pub(super) async fn shut_down(&self) {
        self.events.watches.stop();
        self.executors.close();
        self.flush_all().await;
        self.collections.server.close().await;
    }

    /// Returns the queue whose document has the delivery state of a queue or a group; `None` if
    /// there is none.
    pub(super) async fn owning_queue(&self, queue: &QueueRef) -> Result<Option<i64>> {
        let id = queue.incarnation.get();
        if !queue.incarnation.is_group() {
            return Ok(Some(id));
        }
        if let Some(queue_id) = self.queue_of_group.get(&id) {
            return Ok(Some(queue_id));
        }
        self.ready().await?;
        let query =
            Query { filter: doc! { "group_ids": id }, sort: None, index: BY_GROUP, limit: 1 };
        let fields = Some(doc! { "_id": 1 });
        let found = self.collections.find_projected(QUEUES, query, fields).await?;
        let Some(queue_id) = found.first().and_then(|raw| raw.get_i64("_id").ok()) else {
            return Ok(None);
        };
        self.queue_of_group.insert(id, queue_id);
        Ok(Some(queue_id))
    }

    /// Returns whether the pool knows a queue.
    pub(super) async fn is_open(&self, queue: &QueueRef) -> Result<bool> {
        self.ready().await?;
        let query = Query {
            filter: doc! { "_id": queue.incarnation.get(), "dropped": { "$exists": false } },
            sort: None,
            index: BY_ID,
            limit: 1,
        };
        let fields = Some(doc! { "_id": 1 });
        Ok(!self.collections.find_projected(QUEUES, query, fields).await?.is_empty())
    }
}
