//! The pool, and what all its methods need to call a function.

use std::sync::Arc;

use storage_traits::{
    Result,
    domain::{Incarnation, QueueRef, Timestamp},
    pool::{Durability, MessagePool},
    support::EventCounters,
};

use super::{
    codec::millis,
    post_batcher::PostBatcher,
    queue_cache::{QueueCache, ResolvedQueue},
    reply::Reply,
    watch_task::WatchTask,
};
use crate::{
    error::unexpected,
    keys::{incarnation_of, shard_of},
    library::constants::{STATUS_AGAIN, STATUS_OK},
    options::RedisOptions,
    server::{Function, Replication, Servers},
};

/// A [`MessagePool`] on Redis.
pub struct Redis {
    pub(super) servers: Arc<Servers>,
    pub(super) watches: Arc<WatchTask>,
    pub(super) counters: Arc<EventCounters>,
    pub(super) cache: QueueCache,
    pub(super) posts: Arc<PostBatcher>,
}

impl Redis {
    /// Opens a pool, and connects to the servers that can be reached. The pool connects to the
    /// others when they are needed.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server does not meet the
    /// requirements: it may evict keys, or its durability is less than the options demand.
    pub async fn open(options: RedisOptions) -> Result<Self> {
        let servers = Arc::new(Servers::new(options));
        servers.connect_all().await?;
        let counters = Arc::<EventCounters>::default();
        let watches = WatchTask::start(&servers, &counters);
        let posts = Arc::new(PostBatcher::new(&servers));
        Ok(Self { servers, watches, counters, cache: QueueCache::default(), posts })
    }

    /// Returns the key of the state of a queue or group.
    pub(super) fn key(&self, incarnation: Incarnation) -> String {
        self.servers.keys.state(incarnation)
    }

    /// Creates a call about a queue or group.
    pub(super) fn function(&self, name: &str, queue: &QueueRef) -> Function {
        self.servers.function(name, queue.incarnation)
    }

    /// Calls a function once.
    pub(super) async fn call(
        &self,
        queue: &QueueRef,
        replication: Replication,
        function: &Function,
    ) -> Result<Reply> {
        let value = self.servers.call(shard_of(queue.incarnation), replication, function).await?;
        Ok(Reply::new(value))
    }

    /// Calls a function that first applies what is due, and repeats the call while more is due than
    /// one step applies. Returns `None` if the queue, group or claim does not exist.
    pub(super) async fn apply_due_and_call(
        &self,
        queue: &QueueRef,
        replication: Replication,
        function: &Function,
    ) -> Result<Option<Reply>> {
        loop {
            let mut reply = self.call(queue, replication, function).await?;
            let status = reply.number()?;
            self.counters.add_expired(reply.count()?);
            match status {
                STATUS_OK => return Ok(Some(reply)),
                STATUS_AGAIN => {}
                _ => return Ok(None),
            }
        }
    }

    /// Applies all that is due in a queue or group.
    pub(super) async fn apply_all_due(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let mut function = self.function("stats", queue);
        function.number(millis(now));
        self.apply_due_and_call(queue, Replication::Skip, &function).await.map(drop)
    }

    /// Returns the queue that a reference leads to; `None` if its group does not exist.
    pub(super) async fn resolve(&self, queue: &QueueRef) -> Result<Option<ResolvedQueue>> {
        let own = queue.incarnation;
        if !own.is_group() {
            return Ok(Some(ResolvedQueue { queue: own, group: None }));
        }
        if let Some(resolved) = self.cache.resolved(own) {
            return Ok(Some(resolved));
        }
        let function = self.function("group_source", queue);
        let mut reply = self.call(queue, Replication::Skip, &function).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let (key, name) = (reply.text()?, reply.text()?);
        let resolved = if key.is_empty() {
            ResolvedQueue { queue: own, group: None }
        } else {
            let group = name.parse().map_err(|_| unexpected("a group has a wrong name"))?;
            ResolvedQueue { queue: incarnation_of(&key)?, group: Some(group) }
        };
        self.cache.remember_resolved(own, resolved.clone());
        Ok(Some(resolved))
    }
}

impl MessagePool for Redis {
    fn durability(&self) -> Durability {
        self.servers.durability()
    }
}
