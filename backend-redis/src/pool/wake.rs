//! Waiting for a queue to have something.
//!
//! Whoever changes a reading publishes how much more can be claimed and when something is due, in
//! the shard channel of the reading; a node listens to the channels of what it watches. One task
//! looks when something is due, and every second at what it cannot listen to because a connection is
//! lost, until it can.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use storage_traits::{
    Result,
    domain::{Incarnation, QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
    support::WatchRegistry,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    Counters,
    codec::{NEVER, millis},
    guard_of, key_of, registry_of,
    reply::{OK, Reply},
    shard_of,
};
use crate::{
    Redis,
    server::{Function, Promise, Servers, Session, Signal},
};

/// How often to look at what cannot be listened to.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many queues are looked at side by side.
const SIDE_BY_SIDE: usize = 64;
/// How long to go on listening when nobody watches any more.
const LINGER: Duration = Duration::from_secs(10);

#[async_trait]
impl Watchable for Redis {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let watch = self.wakes.registry.watch(queue.incarnation, what);
        self.wakes.begin(queue.incarnation, now);
        // If it cannot listen it looks; if it cannot look either, who asks is told.
        self.wakes.listen(queue.incarnation).await;
        self.wakes.look(queue.incarnation, now, false).await?;
        Ok(watch)
    }
}

/// What is known of a reading that is watched.
struct Watched {
    /// When something is due.
    due: i64,
    /// The session in which its channel is listened to.
    session: Weak<Session>,
    listens: bool,
    /// When somebody last watched.
    seen: Instant,
}

/// What the pool's node watches.
pub(crate) struct Wakes {
    registry: WatchRegistry,
    servers: Arc<Servers>,
    counters: Arc<Counters>,
    watched: Mutex<HashMap<Incarnation, Watched>>,
    /// What is gone, but still listened to.
    leaving: Mutex<Vec<(Incarnation, Weak<Session>)>>,
    /// The time of the pool at some moment.
    clock: Mutex<Option<(Instant, Timestamp)>>,
    /// Something is due earlier than before, or cannot be listened to any more.
    changed: Notify,
    stopped: AtomicBool,
    me: Weak<Self>,
}

impl Wakes {
    /// Begins to look after what will be watched.
    pub(crate) fn start(
        registry: WatchRegistry,
        servers: &Arc<Servers>,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        let wakes = Arc::new_cyclic(|me| Self {
            registry,
            servers: Arc::clone(servers),
            counters: Arc::clone(counters),
            watched: Mutex::default(),
            leaving: Mutex::default(),
            clock: Mutex::default(),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            me: me.clone(),
        });
        tokio::spawn(run(Arc::downgrade(&wakes)));
        wakes
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Incarnation, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<(Incarnation, Weak<Session>)>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map_or(Timestamp::from_millis(0), |(then, time)| time.plus(then.elapsed()))
    }

    fn begin(&self, reading: Incarnation, now: Timestamp) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), now));
        let seen = Instant::now();
        let new = || Watched { due: NEVER, session: Weak::new(), listens: false, seen };
        self.watched().entry(reading).or_insert_with(new).seen = seen;
    }

    fn is_listening(&self, reading: Incarnation) -> bool {
        let session = match self.watched().get(&reading) {
            Some(watched) if watched.listens => watched.session.upgrade(),
            _ => None,
        };
        session.is_some_and(|session| session.listens_to(&self.channel(reading)))
    }

    fn channel(&self, reading: Incarnation) -> String {
        format!("{}:w", key_of(&self.servers.options.prefix, reading))
    }

    /// Listens to the channel of a reading, if it does not yet; says whether it does now.
    async fn listen(&self, reading: Incarnation) -> bool {
        if self.is_listening(reading) {
            return true;
        }
        let within = self.servers.options.timeout;
        let Ok(Ok(session)) = timeout(within, self.servers.session(shard_of(reading))).await else {
            return false;
        };
        let me = self.me.clone();
        let listener = move |signal| {
            if let Some(wakes) = me.upgrade() {
                wakes.hear(reading, &signal);
            }
        };
        let channel = self.channel(reading);
        let listens = timeout(within, session.listen(&channel, listener)).await;
        if !matches!(listens, Ok(Ok(()))) {
            return false;
        }
        if let Some(watched) = self.watched().get_mut(&reading) {
            watched.listens = true;
            watched.session = Arc::downgrade(&session);
        }
        true
    }

    /// What a server said of a reading.
    fn hear(&self, reading: Incarnation, signal: &Signal) {
        match *signal {
            Signal::News { claimable, posted, due } => {
                self.registry.notify_claimable(reading, claimable);
                if posted {
                    self.registry.notify_posted(reading);
                }
                self.lower(reading, due);
            }
            Signal::Gone => {
                if let Some(watched) = self.watched().remove(&reading) {
                    self.leaving().push((reading, watched.session));
                    self.changed.notify_one();
                }
                self.registry.notify_all(reading);
            }
            Signal::Lost => {
                if let Some(watched) = self.watched().get_mut(&reading) {
                    watched.listens = false;
                }
                self.changed.notify_one();
            }
        }
    }

    /// Something of a reading is due at this time.
    fn lower(&self, reading: Incarnation, due: i64) {
        if let Some(watched) = self.watched().get_mut(&reading)
            && due < watched.due
        {
            watched.due = due;
            self.changed.notify_one();
        }
    }

    /// Does some of what is due in a reading and wakes those for whom there is something; `missed`
    /// says that something may have been posted that nobody heard of.
    async fn look(&self, reading: Incarnation, now: Timestamp, missed: bool) -> Result<()> {
        let (prefix, shard) = (&self.servers.options.prefix, shard_of(reading));
        let keys = [key_of(prefix, reading), registry_of(prefix, shard), guard_of(prefix, shard)];
        let mut function = Function::new("look", &[&keys[0], &keys[1], &keys[2]]);
        function.number(millis(now));
        let mut reply = Reply::new(self.servers.call(shard, Promise::Nothing, &function).await?);
        let status = reply.number()?;
        self.counters.expired(reply.count()?);
        if status != OK {
            self.hear(reading, &Signal::Gone);
            return Ok(());
        }
        let (claimable, due) = (reply.count()?, reply.number()?);
        self.registry.notify_claimable(reading, usize::try_from(claimable).unwrap_or(usize::MAX));
        if missed {
            self.registry.notify_posted(reading);
        }
        if let Some(watched) = self.watched().get_mut(&reading) {
            watched.due = due;
        }
        self.changed.notify_one();
        Ok(())
    }

    /// What could not be looked at is looked at again after a while.
    fn look_later(&self, reading: Incarnation) {
        let later = millis(self.now().plus(LOOK_EVERY));
        if let Some(watched) = self.watched().get_mut(&reading) {
            watched.due = later;
        }
    }

    /// Looks at what is due and at what cannot be listened to; answers when to look again.
    async fn turn(&self, looked: &mut Instant) -> Duration {
        let all_due = looked.elapsed() >= LOOK_EVERY;
        if all_due {
            *looked = Instant::now();
        }
        let now = self.now();
        let (mut due, mut deaf) = (Vec::new(), Vec::new());
        let mut idle = std::mem::take(&mut *self.leaving());
        for (reading, watched) in self.watched().iter_mut() {
            let live = watched.listens
                && watched
                    .session
                    .upgrade()
                    .is_some_and(|session| session.listens_to(&self.channel(*reading)));
            if self.registry.is_watched(*reading) {
                watched.seen = Instant::now();
            } else if watched.seen.elapsed() > LINGER {
                idle.push((*reading, watched.session.clone()));
                continue;
            }
            if !live {
                deaf.push(*reading);
            } else if watched.due <= now.as_millis() {
                due.push(*reading);
            }
        }
        for (reading, session) in idle {
            let again = self.watched().get(&reading).is_some_and(|w| w.seen.elapsed() <= LINGER);
            if again {
                continue;
            }
            self.watched().remove(&reading);
            if let Some(session) = session.upgrade() {
                session.forget(&self.channel(reading)).await;
            }
        }
        // Side by side: those on a server that does not answer hold up none on others.
        let look = async |(reading, is_deaf)| {
            if is_deaf {
                self.listen(reading).await;
            }
            if let Err(error) = self.look(reading, now, is_deaf).await {
                tracing::debug!(%error, "a watched queue cannot be looked at");
                self.look_later(reading);
            }
        };
        let due = due.into_iter().map(|reading| (reading, false));
        let deaf = deaf.into_iter().filter(|reading| all_due && self.registry.is_watched(*reading));
        let looks = due.chain(deaf.map(|reading| (reading, true))).map(look);
        stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
        let until_look = LOOK_EVERY.saturating_sub(looked.elapsed());
        let now = self.now();
        let dues = self.watched().values().filter(|w| w.listens).map(|w| w.due).min();
        let next = dues.unwrap_or(NEVER);
        let until_due = Timestamp::from_millis(next).since(now);
        // At least a moment, so that a clock which stands still does not make it spin.
        until_due.min(until_look).max(Duration::from_millis(1))
    }
}

/// Looks after what is watched until it is stopped, or its pool is gone.
async fn run(wakes: Weak<Wakes>) {
    let mut looked = Instant::now();
    while let Some(wakes) = wakes.upgrade() {
        if wakes.stopped.load(Ordering::Acquire) || wakes.servers.is_closed() {
            return;
        }
        let patience = if wakes.registry.has_watches() || !wakes.watched().is_empty() {
            wakes.turn(&mut looked).await
        } else {
            LOOK_EVERY
        };
        // Whether something has changed or the time has come: it looks.
        let _ = timeout(patience, wakes.changed.notified()).await;
    }
}
