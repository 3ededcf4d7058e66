//! The message pool.
//!
//! A queue is one document: its counters, those of its groups, and a short journal. Its messages lie
//! in buckets of up to 64, one document each. MongoDB changes one document atomically, and that is
//! all that is asked of it:
//!
//! - A **commit** is one change of the queue's document, which is made only if nobody has changed
//!   the queue since it was read (its epoch tells). With it goes an entry into the journal that says
//!   what is to be done to buckets, claims and lines.
//! - It is **carried out** afterwards, by the node that committed it or by whoever comes next. Each
//!   document remembers which commit changed it last, so that a change may come twice and late.
//! - Whatever a commit refers to was **stored before** and was found by nobody; what was deleted is
//!   never stored again.
//! - Whoever **reads** begins with the queue's document, and takes the journal into account.
//!
//! So there is no lock that a dead node could hold, no transaction that could be left open, and the
//! same on a single server, a replica set, and shards.
//!
//! Operations on a queue that wait at the same time on a node are committed together (`lane.rs`).
//! Posts that need to know nothing of the queue do not wait for them (`posts.rs`).

mod append;
mod apply;
mod beside;
mod body;
mod bucket;
mod claim;
mod clerk;
mod commit;
mod group;
mod lane;
mod letters;
mod line;
mod maintenance;
mod message;
mod operation;
mod posts;
mod record;
mod settle;
mod shelf;
mod slot;
mod step;
mod stores;
mod sweep;
mod wake;
mod worker;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use moka::sync::Cache;
use mongodb::bson::doc;
use storage_traits::{
    Result,
    domain::{self, ClientId, NewMessage, QueueRef, Timestamp},
    pool::{Durability, EventCounts, MessagePool},
};
use tokio::{sync::OnceCell, time::timeout};

use self::{
    lane::Lanes,
    operation::Operation,
    posts::Posts,
    step::Step,
    stores::{BY_ID, BY_READING, INDEXES, QUEUES, Query, Stores},
    wake::Wakes,
};
use crate::{indexes, options::MongoOptions, server::Server};

/// How many readings of groups are remembered.
const REMEMBERED: u64 = 100_000;

/// A [`MessagePool`] on MongoDB.
pub struct MongoPool(Arc<Shared>);

/// What the parts of a pool share.
struct Shared {
    stores: Stores,
    /// Empty until the indexes are there.
    ready: OnceCell<()>,
    lanes: Arc<Lanes>,
    posts: Arc<Posts>,
    side: Arc<Side>,
    /// Which queue a group's reading is of. That never changes.
    homes: Cache<i64, i64>,
}

/// Plain posts that were committed.
#[derive(Clone, Copy)]
struct Posted {
    first: i64,
    count: i64,
    /// How many of them can be claimed.
    ready: i64,
    /// When something of them is due.
    due: i64,
}

/// What is told of what is done.
#[derive(Default)]
struct Side {
    wakes: Wakes,
    expired: AtomicU64,
    dead_lettered: AtomicU64,
}

impl Side {
    fn count(&self, tally: EventCounts) {
        self.expired.fetch_add(tally.expired, Ordering::Relaxed);
        self.dead_lettered.fetch_add(tally.dead_lettered, Ordering::Relaxed);
    }

    /// A step was committed.
    fn tell(&self, step: &Step<'_>, epoch: i64) {
        if !self.wakes.registry.has_watches() {
            return;
        }
        self.wakes.stepped(step.home, epoch);
        for (reading, count) in &step.freed {
            self.wakes.claimable(*reading, *count);
        }
        for (reading, due) in &step.dues {
            self.wakes.lower(*reading, *due);
        }
        step.ended.iter().for_each(|reading| self.wakes.gone(*reading));
        step.posted.iter().for_each(|reading| self.wakes.posted(*reading));
    }

    /// Plain posts were committed.
    fn posted(&self, home: i64, readings: &[i64], batch: Posted) {
        let Posted { first, count, ready, due } = batch;
        if !self.wakes.registry.has_watches() {
            return;
        }
        self.wakes.posted_to(home, first, count);
        for reading in readings {
            self.wakes.claimable(*reading, usize::try_from(ready).unwrap_or(0));
            self.wakes.posted(*reading);
            self.wakes.lower(*reading, due);
        }
    }
}

impl Shared {
    /// Makes the indexes, once.
    async fn ready(&self) -> Result<()> {
        let make = || indexes::ensure(&self.stores.0, INDEXES);
        self.ready.get_or_try_init(make).await.copied()
    }

    /// Does an operation on a queue.
    async fn run<O: Operation>(&self, home: i64, operation: O) -> Result<O::Answer> {
        self.ready().await?;
        self.lanes.run(&self.side, &self.stores, home, operation).await
    }
}

impl MongoPool {
    /// Connects, if a server can be reached: one that cannot is tried again whenever something is
    /// asked of the pool.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server can be reached but is not
    /// fit: it is too old, or has other indexes where the pool makes its own.
    pub async fn open(options: MongoOptions) -> Result<Self> {
        let shared = Arc::new(Shared {
            stores: Stores(Server::open(options).await?),
            ready: OnceCell::new(),
            lanes: Arc::default(),
            posts: Arc::default(),
            side: Arc::default(),
            homes: Cache::new(REMEMBERED),
        });
        if shared.stores.0.was_reached() {
            shared.ready().await?;
        }
        wake::start(&shared);
        Ok(Self(shared))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    fn stores(&self) -> &Stores {
        &self.0.stores
    }

    fn wakes(&self) -> &Wakes {
        &self.0.side.wakes
    }

    async fn ready(&self) -> Result<()> {
        self.0.ready().await
    }

    async fn run<O: Operation>(&self, home: i64, operation: O) -> Result<O::Answer> {
        self.0.run(home, operation).await
    }

    async fn store(
        &self,
        home: i64,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Option<Vec<domain::Posted>>> {
        self.ready().await?;
        let Shared { posts, side, stores, .. } = &*self.0;
        posts.store(side, stores, home, client, messages, now).await
    }

    /// Waits until all that was committed here is carried out.
    async fn flush(&self, home: i64) {
        self.0.lanes.flush(home).await;
    }

    async fn flush_all(&self) {
        let Shared { lanes, posts, side, stores, .. } = &*self.0;
        let flush = async {
            posts.flush(side, stores).await;
            lanes.flush_all().await;
        };
        // What takes longer is carried out by others, or later.
        if timeout(stores.0.timeout(), flush).await.is_err() {
            tracing::warn!("what was committed is still to be carried out");
        }
    }

    fn side_counters(&self) -> EventCounts {
        EventCounts {
            expired: self.0.side.expired.load(Ordering::Relaxed),
            dead_lettered: self.0.side.dead_lettered.load(Ordering::Relaxed),
        }
    }

    async fn shut_down(&self) {
        self.wakes().stop();
        self.0.lanes.close();
        self.flush_all().await;
        self.stores().0.close().await;
    }

    /// In whose document the counters of a queue or a reading are; `None` if it is unknown.
    async fn home(&self, queue: &QueueRef) -> Result<Option<i64>> {
        let own = queue.incarnation.get();
        // All readings have this bit, and queues have not for a while.
        if own & (1 << 62) == 0 {
            return Ok(Some(own));
        }
        if let Some(home) = self.0.homes.get(&own) {
            return Ok(Some(home));
        }
        self.ready().await?;
        let query =
            Query { filter: doc! { "reading_ids": own }, sort: None, index: BY_READING, limit: 1 };
        let found = self.stores().find_parts(QUEUES, query, Some(doc! { "_id": 1 })).await?;
        let Some(home) = found.first().and_then(|raw| raw.get_i64("_id").ok()) else {
            return Ok(None);
        };
        self.0.homes.insert(own, home);
        Ok(Some(home))
    }

    /// Whether the pool knows a queue.
    async fn is_open(&self, queue: &QueueRef) -> Result<bool> {
        self.ready().await?;
        let query = Query {
            filter: doc! { "_id": queue.incarnation.get(), "gone": { "$exists": false } },
            sort: None,
            index: BY_ID,
            limit: 1,
        };
        let parts = Some(doc! { "_id": 1 });
        Ok(!self.stores().find_parts(QUEUES, query, parts).await?.is_empty())
    }
}

impl Drop for MongoPool {
    fn drop(&mut self) {
        self.wakes().stop();
    }
}

impl MessagePool for MongoPool {
    fn durability(&self) -> Durability {
        self.stores().0.durability()
    }
}
