//! Waiting for a queue to have something.
//!
//! What this node does itself it tells its own watches at once. What others do shows in the queue's
//! document: a replica set pushes its changes, and without one the documents of watched queues are
//! read every second, all in one query.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use mongodb::{
    bson::{Document, doc},
    change_stream::{ChangeStream, event::ChangeStreamEvent},
};
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
    support::WatchRegistry,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    MongoPool, Shared,
    body::Answer,
    bucket::NEVER,
    operation::Operation,
    step::{Progress, Step},
    stores::QUEUES,
};
use crate::server::Topology;

/// How often to look at what nobody tells of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to go on when nobody watches any more.
const LINGER: Duration = Duration::from_secs(10);

#[async_trait]
impl Watchable for MongoPool {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let reading = queue.incarnation;
        let watch = self.wakes().registry.watch(reading, what);
        let Some(home) = self.home(queue).await? else {
            self.wakes().registry.notify_all(reading);
            return Ok(watch);
        };
        self.wakes().begin(home, reading.get(), now);
        look(self.shared(), home, reading.get(), now).await?;
        Ok(watch)
    }
}

/// What is known of a reading that is watched.
struct Watched {
    home: i64,
    /// When something is due.
    due: i64,
    /// When somebody last watched.
    seen: Instant,
}

/// How far a queue has come, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progressed {
    epoch: i64,
    tail: i64,
}

/// What the pool's node watches.
#[derive(Default)]
pub(super) struct Wakes {
    pub(super) registry: WatchRegistry,
    watched: Mutex<HashMap<i64, Watched>>,
    queues: Mutex<HashMap<i64, Progressed>>,
    /// The time of the pool at some moment.
    clock: Mutex<Option<(Instant, Timestamp)>>,
    /// Something is due earlier than before, or is watched anew.
    changed: Notify,
    stopped: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakes {
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn now(&self) -> Timestamp {
        let clock = *locked(&self.clock);
        clock.map_or(Timestamp::from_millis(0), |(then, time)| time.plus(then.elapsed()))
    }

    fn begin(&self, home: i64, reading: i64, now: Timestamp) {
        *locked(&self.clock) = Some((Instant::now(), now));
        let seen = Instant::now();
        let mut watched = locked(&self.watched);
        let was_idle = watched.is_empty();
        watched.entry(reading).or_insert(Watched { home, due: NEVER, seen }).seen = seen;
        if was_idle {
            self.changed.notify_one();
        }
    }

    /// More of a reading can be claimed.
    pub(super) fn claimable(&self, reading: i64, count: usize) {
        if let Some(reading) = storage_traits::domain::Incarnation::new(reading) {
            self.registry.notify_claimable(reading, count);
        }
    }

    /// Messages came to a reading.
    pub(super) fn posted(&self, reading: i64) {
        if let Some(reading) = storage_traits::domain::Incarnation::new(reading) {
            self.registry.notify_posted(reading);
        }
    }

    /// A reading is no more.
    pub(super) fn gone(&self, reading: i64) {
        locked(&self.watched).remove(&reading);
        if let Some(reading) = storage_traits::domain::Incarnation::new(reading) {
            self.registry.notify_all(reading);
        }
    }

    /// Something of a reading is due at this time.
    pub(super) fn lower(&self, reading: i64, due: i64) {
        if let Some(watched) = locked(&self.watched).get_mut(&reading)
            && due < watched.due
        {
            watched.due = due;
            self.changed.notify_one();
        }
    }

    /// This node has made a step of a queue: if it is the next, nobody else has made one.
    pub(super) fn stepped(&self, home: i64, epoch: i64) {
        if let Some(known) = locked(&self.queues).get_mut(&home)
            && known.epoch == epoch - 1
        {
            known.epoch = epoch;
        }
    }

    /// This node has posted to a queue: if those are the next messages, nobody else has.
    pub(super) fn posted_to(&self, home: i64, first: i64, count: i64) {
        if let Some(known) = locked(&self.queues).get_mut(&home)
            && known.tail == first - 1
        {
            known.tail += count;
        }
    }

    fn set_due(&self, reading: i64, due: i64) {
        if let Some(watched) = locked(&self.watched).get_mut(&reading) {
            watched.due = due;
        }
        if due < NEVER {
            self.changed.notify_one();
        }
    }

    /// What is due, what is watched at all, and when the next is due.
    fn turn(&self) -> (Vec<(i64, i64)>, i64) {
        let now = self.now().as_millis();
        let mut watched = locked(&self.watched);
        watched.retain(|reading, watched| {
            let rings = storage_traits::domain::Incarnation::new(*reading)
                .is_some_and(|reading| self.registry.is_watched(reading));
            if rings {
                watched.seen = Instant::now();
            }
            watched.seen.elapsed() < LINGER
        });
        let due = watched.iter().filter(|(_, watched)| watched.due <= now);
        let due = due.map(|(reading, watched)| (watched.home, *reading)).collect();
        let next = watched.values().map(|it| it.due).filter(|due| *due > now).min();
        (due, next.unwrap_or(NEVER))
    }

    fn readings_of(&self, home: i64) -> Vec<i64> {
        let watched = locked(&self.watched);
        watched.iter().filter(|(_, it)| it.home == home).map(|(reading, _)| *reading).collect()
    }

    fn homes(&self) -> Vec<i64> {
        let mut homes: Vec<i64> = locked(&self.watched).values().map(|it| it.home).collect();
        homes.sort_unstable();
        homes.dedup();
        let mut queues = locked(&self.queues);
        queues.retain(|home, _| homes.binary_search(home).is_ok());
        homes
    }

    /// Takes in how far a queue has come; says whether others have brought it there, and whether by
    /// posts.
    fn learn(&self, home: i64, epoch: Option<i64>, tail: Option<i64>) -> (bool, bool) {
        let mut queues = locked(&self.queues);
        let Some(known) = queues.get_mut(&home) else {
            if let (Some(epoch), Some(tail)) = (epoch, tail) {
                queues.insert(home, Progressed { epoch, tail });
            }
            return (true, true);
        };
        let later = epoch.is_some_and(|epoch| epoch > known.epoch);
        let posted = tail.is_some_and(|tail| tail > known.tail);
        known.epoch = known.epoch.max(epoch.unwrap_or(0));
        known.tail = known.tail.max(tail.unwrap_or(0));
        (later || posted, posted)
    }
}

/// Does some of what is due in a reading and wakes those for whom there is something.
async fn look(shared: &Arc<Shared>, home: i64, reading: i64, now: Timestamp) -> Result<()> {
    // What becomes due meanwhile is told meanwhile.
    shared.side.wakes.set_due(reading, NEVER);
    let seen = shared.run(home, Look { reading, now }).await?;
    let Some(seen) = seen else {
        shared.side.wakes.gone(reading);
        return Ok(());
    };
    locked(&shared.side.wakes.queues)
        .entry(home)
        .or_insert(Progressed { epoch: seen.epoch, tail: seen.tail });
    shared.side.wakes.claimable(reading, usize::try_from(seen.claimable).unwrap_or(usize::MAX));
    shared.side.wakes.lower(reading, seen.due);
    Ok(())
}

struct Look {
    reading: i64,
    now: Timestamp,
}

struct Seen {
    claimable: i64,
    due: i64,
    epoch: i64,
    tail: i64,
}

impl Answer for Option<Seen> {}

#[async_trait]
impl Operation for Look {
    type Answer = Option<Seen>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Self { reading, now } = *self;
        if !step.knows(reading) {
            return Ok(Progress::Done(None));
        }
        if !step.settle(reading, now).await?.done {
            return Ok(Progress::Again);
        }
        let counters = step.reading(reading)?;
        let in_line = if counters.open_lines > 0 { counters.in_line } else { 0 };
        let claimable = counters.ready + in_line;
        let known = step.shelf.known.due.get(&reading).copied().unwrap_or(i64::MIN);
        let due = step.shelf.next_due(reading).min(known.saturating_add(1));
        let (epoch, tail) = (step.record()?.epoch, step.record()?.tail);
        Ok(Progress::Done(Some(Seen { claimable, due, epoch, tail })))
    }
}

/// Looks after what is watched until the pool is closed or gone.
pub(super) fn start(shared: &Arc<Shared>) {
    shared.stores.0.spawn(follow_time(Arc::downgrade(shared)));
    shared.stores.0.spawn(follow_others(Arc::downgrade(shared)));
}

/// Looks when something is due.
async fn follow_time(weak: std::sync::Weak<Shared>) {
    while let Some(shared) = weak.upgrade() {
        let side = Arc::clone(&shared.side);
        if side.wakes.is_stopped() {
            return;
        }
        let (due, next) = side.wakes.turn();
        let now = side.wakes.now();
        let looks = due.into_iter().map(|(home, reading)| {
            let shared = &shared;
            async move {
                if let Err(error) = look(shared, home, reading, now).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, queue = home, "a watched queue cannot be looked at");
                    let later = now.plus(LOOK_EVERY).as_millis();
                    shared.side.wakes.set_due(reading, later);
                }
            }
        });
        futures_util::stream::iter(looks).buffer_unordered(64).collect::<()>().await;
        drop(shared);
        let until_due = Timestamp::from_millis(next).since(side.wakes.now());
        // At least a moment, so that a clock which stands still does not make it spin.
        let patience = until_due.clamp(Duration::from_millis(1), LOOK_EVERY);
        let _ = timeout(patience, side.wakes.changed.notified()).await;
    }
}

type Stream = ChangeStream<ChangeStreamEvent<Document>>;

/// Sees what other nodes do to watched queues.
async fn follow_others(weak: std::sync::Weak<Shared>) {
    let mut stream: Option<Stream> = None;
    loop {
        let Some(shared) = weak.upgrade() else { return };
        if shared.side.wakes.is_stopped() || shared.stores.0.is_closed() {
            return;
        }
        let watches = !shared.side.wakes.homes().is_empty();
        if !watches {
            stream = None;
        } else if stream.is_none() && shared.stores.0.topology() != Topology::Standalone {
            stream = open(&shared).await;
            // What happened before it began is seen by reading.
            poll(&shared).await;
        }
        let Some(following) = &mut stream else {
            if watches {
                poll(&shared).await;
            }
            drop(shared);
            pause().await;
            continue;
        };
        drop(shared);
        let event = timeout(LOOK_EVERY, following.next()).await;
        let Some(shared) = weak.upgrade() else { return };
        match event {
            Err(_) => {}
            Ok(Some(Ok(event))) => hear(&shared, &event).await,
            Ok(Some(Err(_)) | None) => {
                stream = None;
                poll(&shared).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody tells when there is something new")]
async fn pause() {
    tokio::time::sleep(LOOK_EVERY).await;
}

async fn open(shared: &Arc<Shared>) -> Option<Stream> {
    let pipeline = [
        doc! { "$match": { "operationType": { "$in": ["update", "replace", "delete"] } } },
        doc! { "$project": {
            "operationType": 1, "ns": 1, "documentKey": 1,
            "updateDescription.updatedFields.epoch": 1,
            "updateDescription.updatedFields.tail": 1,
            "updateDescription.updatedFields.gone": 1,
            "updateDescription.removedFields": { "$literal": [] },
        } },
    ];
    let queues = shared.stores.0.followed::<Document>(QUEUES);
    let opened = timeout(shared.stores.0.timeout(), queues.watch().pipeline(pipeline)).await;
    match opened {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the changes of queues cannot be followed");
            None
        }
        Err(_) => None,
    }
}

async fn hear(shared: &Arc<Shared>, event: &ChangeStreamEvent<Document>) {
    let home = event.document_key.as_ref().and_then(|key| key.get_i64("_id").ok());
    let Some(home) = home else { return };
    let fields = event.update_description.as_ref().map(|it| &it.updated_fields);
    let number = |name| fields.and_then(|fields| fields.get_i64(name).ok());
    news(shared, home, number("epoch"), number("tail")).await;
}

/// A queue has come so far: if by others, those who watch it are told.
async fn news(shared: &Arc<Shared>, home: i64, epoch: Option<i64>, tail: Option<i64>) {
    let readings = shared.side.wakes.readings_of(home);
    if readings.is_empty() {
        return;
    }
    let (news, posted) = shared.side.wakes.learn(home, epoch, tail);
    if !news {
        return;
    }
    let now = shared.side.wakes.now();
    for reading in readings {
        if posted {
            shared.side.wakes.posted(reading);
        }
        if let Err(error) = look(shared, home, reading, now).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, queue = home, "a watched queue cannot be looked at");
            shared.side.wakes.set_due(reading, now.plus(LOOK_EVERY).as_millis());
        }
    }
}

/// Reads how far the watched queues have come.
async fn poll(shared: &Arc<Shared>) {
    let homes = shared.side.wakes.homes();
    if homes.is_empty() {
        return;
    }
    let found = match shared.stores.progress(&homes).await {
        Ok(found) => found,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "watched queues cannot be read");
            return;
        }
    };
    let mut there = Vec::new();
    for raw in &found {
        let number = |name| raw.get_i64(name).ok();
        let Some(home) = number("_id") else { continue };
        there.push(home);
        news(shared, home, number("epoch"), number("tail")).await;
    }
    for home in homes.into_iter().filter(|home| !there.contains(home)) {
        shared.side.wakes.readings_of(home).into_iter().for_each(|it| shared.side.wakes.gone(it));
    }
}
