//! The message pool: each method is a function of the library, called where the queue's keys are.
//!
//! A queue's keys begin with the pool's prefix, a hash tag and the queue's incarnation. The tag is
//! the incarnation's last eight bits, and the readings of a queue get incarnations that end in the
//! same: so all that a function touches is in one slot, and a Cluster spreads queues over 256 of
//! them. Names are in no key.

mod claim;
mod codec;
mod group;
mod letters;
mod maintenance;
mod message;
mod posts;
mod reply;
mod wake;

use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use storage_traits::{
    Result,
    domain::{GroupName, Incarnation, QueueRef},
    pool::{Durability, EventCounts, MessagePool},
};

use self::reply::Reply;
pub(crate) use self::{posts::Posts, wake::Wakes};
use crate::{
    Redis,
    error::unexpected,
    server::{Function, Promise, Shard},
};

/// How many readings of groups are remembered.
const REMEMBERED: u64 = 100_000;

/// What the pool did on the side.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    expired: AtomicU64,
    dead_lettered: AtomicU64,
}

impl Counters {
    pub(crate) fn expired(&self, count: u64) {
        if count > 0 {
            self.expired.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn dead_lettered(&self, count: u64) {
        self.dead_lettered.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> EventCounts {
        EventCounts {
            expired: self.expired.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
        }
    }
}

/// What a reading reads.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The queue: its incarnation is that of the messages' ids.
    pub(crate) queue: Incarnation,
    /// The group, if the reading is one's.
    pub(crate) group: Option<GroupName>,
}

/// What is remembered of readings.
pub(crate) struct Sources {
    /// They never change.
    sources: Cache<Incarnation, Source>,
    /// How far a queue's messages were claimed when somebody last looked: a guess that is tried.
    cursors: Cache<Incarnation, i64>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { sources: Cache::new(REMEMBERED), cursors: Cache::new(REMEMBERED) }
    }
}

impl Sources {
    fn cursor(&self, queue: Incarnation) -> Option<i64> {
        self.cursors.get(&queue)
    }

    fn remember_cursor(&self, queue: Incarnation, cursor: i64) {
        if self.cursors.get(&queue) != Some(cursor) {
            self.cursors.insert(queue, cursor);
        }
    }
}

/// The part of a queue's keys that decides about their slot.
pub(crate) fn shard_of(incarnation: Incarnation) -> Shard {
    let [.., last] = incarnation.get().to_be_bytes();
    last
}

/// The key under which a reading's state is; all its keys begin with it.
pub(crate) fn key_of(prefix: &str, incarnation: Incarnation) -> String {
    format!("{prefix}:{{{}}}:{}", shard_of(incarnation), incarnation.get())
}

/// The key of the registry of what is due in a shard.
pub(crate) fn registry_of(prefix: &str, shard: Shard) -> String {
    format!("{prefix}:{{{shard}}}:due")
}

/// A key that never exists, and that each call of a function names behind the reading and the
/// registry.
///
/// While a slot moves to another master of a Cluster, each of the two has some of its keys. A
/// function that names keys of which the server misses one is not run there, so none ever runs in
/// the midst of half a queue: such calls are tried again until the slot has moved.
pub(crate) fn guard_of(prefix: &str, shard: Shard) -> String {
    format!("{prefix}:{{{shard}}}:none")
}

/// The incarnation at the end of a reading's key.
pub(crate) fn incarnation_of(key: &str) -> Result<Incarnation> {
    let number = key.rsplit(':').next().and_then(|number| number.parse().ok());
    number.and_then(Incarnation::new).ok_or_else(|| unexpected("a reading has a wrong key"))
}

impl Redis {
    fn key(&self, incarnation: Incarnation) -> String {
        key_of(&self.servers.options.prefix, incarnation)
    }

    /// Begins a call about a queue or a reading.
    fn function(&self, name: &str, queue: &QueueRef) -> Function {
        let (prefix, shard) = (&self.servers.options.prefix, shard_of(queue.incarnation));
        let (registry, guard) = (registry_of(prefix, shard), guard_of(prefix, shard));
        Function::new(name, &[&self.key(queue.incarnation), &registry, &guard])
    }

    /// Calls a function once.
    async fn call(&self, queue: &QueueRef, promise: Promise, function: &Function) -> Result<Reply> {
        let value = self.servers.call(shard_of(queue.incarnation), promise, function).await?;
        Ok(Reply::new(value))
    }

    /// Calls a function until it says that it is done; `None` if the reading is unknown.
    async fn settle_and_call(
        &self,
        queue: &QueueRef,
        promise: Promise,
        function: &Function,
    ) -> Result<Option<Reply>> {
        loop {
            let mut reply = self.call(queue, promise, function).await?;
            let status = reply.number()?;
            self.counters.expired(reply.count()?);
            match status {
                reply::OK => return Ok(Some(reply)),
                reply::AGAIN => {}
                _ => return Ok(None),
            }
        }
    }

    /// What a reading reads; `None` if it is unknown.
    async fn source(&self, queue: &QueueRef) -> Result<Option<Source>> {
        let own = queue.incarnation;
        // All readings have this bit, and queues have not for a while.
        if own.get() & (1 << 62) == 0 {
            return Ok(Some(Source { queue: own, group: None }));
        }
        if let Some(source) = self.sources.sources.get(&own) {
            return Ok(Some(source));
        }
        let function = self.function("source", queue);
        let mut reply = self.call(queue, Promise::Nothing, &function).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let (key, name) = (reply.text()?, reply.text()?);
        let source = if key.is_empty() {
            Source { queue: own, group: None }
        } else {
            let group = name.parse().map_err(|_| unexpected("a group has a wrong name"))?;
            Source { queue: incarnation_of(&key)?, group: Some(group) }
        };
        self.sources.sources.insert(own, source.clone());
        Ok(Some(source))
    }
}

impl MessagePool for Redis {
    fn durability(&self) -> Durability {
        self.servers.durability()
    }
}
