//! The watches of a node, and the task that keeps them informed.
//!
//! A function that changes a queue or group publishes how many more messages can be claimed and
//! when something is due, in the shard channel of the queue or group. A node subscribes to the
//! channels of what it watches. The task polls a queue when something is due, and every second
//! while the node is not subscribed to its channel because a connection broke.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    pool::{Watch, WatchFor},
    support::{EventCounters, WatchDriver},
};
use tokio::time::timeout;

use super::{codec::millis, reply::Reply};
use crate::{
    keys::shard_of,
    library::constants::STATUS_OK,
    server::{Event, Replication, Servers, Session},
};

const POLL_INTERVAL: Duration = WatchDriver::<Subscription>::POLL_INTERVAL;
/// Maximum number of queues that are polled concurrently.
const MAX_CONCURRENT_POLLS: usize = 64;

/// Subscription to the channel of a queue or group.
#[derive(Default)]
struct Subscription {
    session: Weak<Session>,
    is_active: bool,
}

/// The watches of a node.
pub(super) struct WatchTask {
    driver: WatchDriver<Subscription>,
    servers: Arc<Servers>,
    counters: Arc<EventCounters>,
    /// Subscriptions to channels of dropped queues, to be ended.
    stale_subscriptions: Mutex<Vec<(Incarnation, Subscription)>>,
    me: Weak<Self>,
}

impl WatchTask {
    /// Starts the task.
    pub(super) fn start(servers: &Arc<Servers>, counters: &Arc<EventCounters>) -> Arc<Self> {
        let watches = Arc::new_cyclic(|me| Self {
            driver: WatchDriver::default(),
            servers: Arc::clone(servers),
            counters: Arc::clone(counters),
            stale_subscriptions: Mutex::default(),
            me: me.clone(),
        });
        tokio::spawn(run(Arc::downgrade(&watches)));
        watches
    }

    pub(super) fn stop(&self) {
        self.driver.stop();
    }

    /// Starts a watch. If the node cannot subscribe to the channel, the task polls the queue.
    ///
    /// # Errors
    /// Those of the first poll.
    pub(super) async fn watch(
        &self,
        queue: Incarnation,
        what: WatchFor,
        now: Timestamp,
    ) -> Result<Watch> {
        let watch = self.driver.registry().watch(queue, what);
        self.driver.track(queue, now, Subscription::default);
        self.subscribe(queue).await;
        self.poll(queue, now, false).await?;
        Ok(watch)
    }

    fn stale_subscriptions(&self) -> MutexGuard<'_, Vec<(Incarnation, Subscription)>> {
        self.stale_subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, queue: Incarnation) -> String {
        self.servers.keys.events(queue)
    }

    fn is_subscribed(&self, queue: Incarnation) -> bool {
        let session = match self.driver.schedule().get(queue) {
            Some(subscription) if subscription.is_active => subscription.session.upgrade(),
            _ => None,
        };
        session.is_some_and(|session| session.is_subscribed(&self.channel(queue)))
    }

    /// Subscribes to the channel of a queue, unless the node is subscribed to it. A failure is not
    /// reported: the task polls the queue and subscribes later.
    async fn subscribe(&self, queue: Incarnation) {
        if self.is_subscribed(queue) {
            return;
        }
        let within = self.servers.options.timeout;
        let Ok(Ok(session)) = timeout(within, self.servers.session(shard_of(queue))).await else {
            return;
        };
        let me = self.me.clone();
        let on_event = move |event| {
            if let Some(watches) = me.upgrade() {
                watches.on_event(queue, &event);
            }
        };
        let channel = self.channel(queue);
        let subscribed = timeout(within, session.subscribe(&channel, on_event)).await;
        if !matches!(subscribed, Ok(Ok(()))) {
            return;
        }
        if let Some(subscription) = self.driver.schedule().get_mut(queue) {
            *subscription = Subscription { session: Arc::downgrade(&session), is_active: true };
        }
    }

    fn on_event(&self, queue: Incarnation, event: &Event) {
        match *event {
            Event::Changed { claimable, posted, due } => {
                self.driver.registry().notify_claimable(queue, claimable);
                if posted {
                    self.driver.registry().notify_posted(queue);
                }
                self.driver.schedule_no_later_than(queue, Timestamp::from_millis(due));
            }
            Event::Dropped => self.on_dropped(queue),
            Event::Disconnected => {
                if let Some(subscription) = self.driver.schedule().get_mut(queue) {
                    subscription.is_active = false;
                }
                self.driver.notify_changed();
            }
        }
    }

    fn on_dropped(&self, queue: Incarnation) {
        if let Some(subscription) = self.driver.notify_dropped(queue) {
            self.stale_subscriptions().push((queue, subscription));
            self.driver.notify_changed();
        }
    }

    /// Applies what is due in a queue, and notifies the watches. `missed_events` says that a
    /// message may have been posted while the node was not subscribed.
    async fn poll(&self, queue: Incarnation, now: Timestamp, missed_events: bool) -> Result<()> {
        let mut function = self.servers.function("poll", queue);
        function.number(millis(now));
        let value = self.servers.call(shard_of(queue), Replication::Skip, &function).await?;
        let mut reply = Reply::new(value);
        let status = reply.number()?;
        self.counters.add_expired(reply.count()?);
        if status != STATUS_OK {
            self.on_dropped(queue);
            return Ok(());
        }
        let (claimable, due) = (reply.count()?, reply.number()?);
        let claimable = usize::try_from(claimable).unwrap_or(usize::MAX);
        self.driver.registry().notify_claimable(queue, claimable);
        if missed_events {
            self.driver.registry().notify_posted(queue);
        }
        self.driver.schedule_no_later_than(queue, Timestamp::from_millis(due));
        Ok(())
    }

    /// Ends the subscriptions for queues that were dropped, or that no longer have a watch.
    async fn end_subscriptions(&self) {
        let mut ended = std::mem::take(&mut *self.stale_subscriptions());
        ended.extend(self.driver.untrack_idle());
        for (queue, subscription) in ended {
            // A watch may have started meanwhile.
            let is_tracked = self.driver.schedule().get(queue).is_some();
            if let Some(session) = subscription.session.upgrade().filter(|_| !is_tracked) {
                session.unsubscribe(&self.channel(queue)).await;
            }
        }
    }

    /// Polls the queues in which something is due, and with `poll_all` those that the node watches
    /// without a subscription.
    async fn tick(&self, poll_all: bool) {
        self.end_subscriptions().await;
        let now = self.driver.now();
        let (due, unreachable): (Vec<_>, Vec<_>) =
            self.driver.take_due().into_iter().partition(|queue| self.is_subscribed(*queue));
        // These are polled with all that have no subscription; until then they stay due.
        for queue in unreachable {
            self.driver.schedule_retry(queue);
        }
        let mut unsubscribed = Vec::new();
        if poll_all {
            let tracked: Vec<_> = self.driver.schedule().iter().map(|(queue, _)| queue).collect();
            unsubscribed.extend(tracked.into_iter().filter(|queue| {
                self.driver.registry().is_watched(*queue) && !self.is_subscribed(*queue)
            }));
        }
        let poll = async |(queue, missed_events)| {
            if missed_events {
                self.subscribe(queue).await;
            }
            if let Err(error) = self.poll(queue, now, missed_events).await {
                tracing::debug!(%error, "cannot poll a watched queue; will retry");
                if missed_events && let Some(subscription) = self.driver.schedule().get_mut(queue) {
                    // The next poll of queues without a subscription must report missed posts.
                    subscription.is_active = false;
                }
                self.driver.schedule_retry(queue);
            }
        };
        let due = due.into_iter().map(|queue| (queue, false));
        let polls = due.chain(unsubscribed.into_iter().map(|queue| (queue, true))).map(poll);
        // Concurrently, so that a few queues on a server that does not respond do not delay the
        // others.
        stream::iter(polls).buffer_unordered(MAX_CONCURRENT_POLLS).collect::<()>().await;
    }
}

/// Runs the task until it is stopped, or its pool is dropped.
async fn run(watches: Weak<WatchTask>) {
    let mut last_poll = Instant::now();
    while let Some(watches) = watches.upgrade() {
        let driver = &watches.driver;
        if driver.is_stopped() || watches.servers.is_closed() {
            return;
        }
        let poll_all = last_poll.elapsed() >= POLL_INTERVAL;
        if poll_all {
            last_poll = Instant::now();
        }
        watches.tick(poll_all).await;
        driver.wait(POLL_INTERVAL.saturating_sub(last_poll.elapsed())).await;
    }
}
