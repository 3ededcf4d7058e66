use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{WatchRegistry, WatchSchedule};
use crate::domain::{Incarnation, Timestamp};

/// Watches, their schedule and the signal that the schedule changed, for a backend whose driver is a
/// task: it calls [`WatchDriver::take_due`], applies what is due, and calls [`WatchDriver::wait`].
#[derive(Debug)]
pub struct WatchDriver<T> {
    registry: WatchRegistry,
    schedule: Mutex<WatchSchedule<T>>,
    changed: Notify,
    stopped: AtomicBool,
}

impl<T> Default for WatchDriver<T> {
    fn default() -> Self {
        Self {
            registry: WatchRegistry::default(),
            schedule: Mutex::default(),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
        }
    }
}

impl<T> WatchDriver<T> {
    /// How often to poll what cannot be pushed.
    pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
    /// How long a queue stays tracked after its last watch ended.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Returns the watches.
    pub const fn registry(&self) -> &WatchRegistry {
        &self.registry
    }

    /// Locks the schedule.
    pub fn schedule(&self) -> MutexGuard<'_, WatchSchedule<T>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the pool's time; see [`WatchSchedule::now`].
    pub fn now(&self) -> Timestamp {
        self.schedule().now()
    }

    /// Tracks a queue; see [`WatchSchedule::track`].
    pub fn track(&self, queue: Incarnation, now: Timestamp, value: impl FnOnce() -> T) {
        let mut schedule = self.schedule();
        let was_idle = schedule.is_empty();
        schedule.set_time(now);
        schedule.track(queue, value);
        if was_idle {
            self.changed.notify_one();
        }
    }

    /// Schedules a queue; see [`WatchSchedule::schedule_no_later_than`].
    pub fn schedule_no_later_than(&self, queue: Incarnation, due_at: Timestamp) {
        if self.schedule().schedule_no_later_than(queue, due_at) {
            self.changed.notify_one();
        }
    }

    /// Schedules a queue that could not be read for the next poll.
    pub fn schedule_retry(&self, queue: Incarnation) {
        let mut schedule = self.schedule();
        let retry_at = schedule.now().plus(Self::POLL_INTERVAL);
        schedule.schedule_no_later_than(queue, retry_at);
    }

    /// Stops tracking a queue that was dropped, and wakes all its watches.
    pub fn notify_dropped(&self, queue: Incarnation) -> Option<T> {
        let value = self.schedule().untrack(queue);
        self.registry.notify_all(queue);
        value
    }

    /// Removes the queues that had no watch for [`Self::IDLE_TIMEOUT`].
    pub fn untrack_idle(&self) -> Vec<(Incarnation, T)> {
        self.schedule().untrack_idle(Self::IDLE_TIMEOUT, |queue| self.registry.is_watched(queue))
    }

    /// Removes what is due; see [`WatchSchedule::take_due`].
    pub fn take_due(&self) -> Vec<Incarnation> {
        self.schedule().take_due()
    }

    /// Ends the next [`WatchDriver::wait`] at once.
    pub fn notify_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits until something is due, the schedule changes, or `at_most` is over.
    pub async fn wait(&self, at_most: Duration) {
        let time = self.schedule().until_due(at_most);
        // The caller reads the schedule again, whichever of the two ended the wait.
        let _ = timeout(time, self.changed.notified()).await;
    }

    /// Tells the driver's task to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Returns whether the driver's task is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
