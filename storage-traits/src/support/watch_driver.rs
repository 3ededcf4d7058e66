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

/// Watches of a pool, the due times of their queues, and a signal that the due times changed, for a
/// backend whose watches are driven by a task. In a loop, the task calls [`WatchDriver::take_due`],
/// reads those queues, wakes their watches, and calls [`WatchDriver::wait`].
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
    /// Interval at which a backend polls for changes that its server does not push.
    pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
    /// Time for which a queue stays tracked after its last watch ended.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Returns the registry of the watches.
    pub const fn registry(&self) -> &WatchRegistry {
        &self.registry
    }

    /// Locks the schedule. The caller must not hold the guard across an `.await`.
    pub fn schedule(&self) -> MutexGuard<'_, WatchSchedule<T>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the pool's time; see [`WatchSchedule::now`].
    pub fn now(&self) -> Timestamp {
        self.schedule().now()
    }

    /// Sets the pool's time and tracks a queue; see [`WatchSchedule::track`].
    pub fn track(&self, queue: Incarnation, now: Timestamp, value: impl FnOnce() -> T) {
        let mut schedule = self.schedule();
        let was_idle = schedule.is_empty();
        schedule.set_time(now);
        schedule.track(queue, value);
        if was_idle {
            self.changed.notify_one();
        }
    }

    /// Schedules a tracked queue; see [`WatchSchedule::schedule_no_later_than`].
    pub fn schedule_no_later_than(&self, queue: Incarnation, due_at: Timestamp) {
        if self.schedule().schedule_no_later_than(queue, due_at) {
            self.changed.notify_one();
        }
    }

    /// Schedules a queue that could not be read to be read again after [`Self::POLL_INTERVAL`].
    /// Does not end [`WatchDriver::wait`]: the task that retries calls it next.
    pub fn schedule_retry(&self, queue: Incarnation) {
        let mut schedule = self.schedule();
        let retry_at = schedule.now().plus(Self::POLL_INTERVAL);
        schedule.schedule_no_later_than(queue, retry_at);
    }

    /// Stops tracking a queue that was dropped, wakes all its watches, and returns its value.
    pub fn notify_dropped(&self, queue: Incarnation) -> Option<T> {
        let value = self.schedule().untrack(queue);
        self.registry.notify_all(queue);
        value
    }

    /// Removes and returns the queues that had no watch for [`Self::IDLE_TIMEOUT`].
    pub fn untrack_idle(&self) -> Vec<(Incarnation, T)> {
        self.schedule().untrack_idle(Self::IDLE_TIMEOUT, |queue| self.registry.is_watched(queue))
    }

    /// Removes the due times that have passed and returns their queues; see
    /// [`WatchSchedule::take_due`].
    pub fn take_due(&self) -> Vec<Incarnation> {
        self.schedule().take_due()
    }

    /// Ends the next [`WatchDriver::wait`] at once.
    pub fn notify_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits until a queue is due, the schedule changes, or `at_most` has passed.
    pub async fn wait(&self, at_most: Duration) {
        let time = self.schedule().until_due(at_most);
        // The caller reads the schedule again in either case.
        let _ = timeout(time, self.changed.notified()).await;
    }

    /// Requests the driver's task to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Returns whether the driver's task was requested to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::WatchFor;

    const LONG: Duration = Duration::from_mins(1);

    fn queue(number: i64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_queue_that_could_not_be_read_is_due_again_later() {
        let driver = WatchDriver::default();
        driver.track(queue(1), at(1_000), || ());
        driver.schedule_no_later_than(queue(1), at(900));
        assert_eq!(driver.take_due(), [queue(1)]);
        driver.schedule_retry(queue(1));
        assert_eq!(driver.take_due(), []);
        driver.schedule().set_time(at(10_000));
        assert_eq!(driver.take_due(), [queue(1)]);
    }

    #[tokio::test]
    async fn a_change_before_the_wait_ends_it() {
        let driver = WatchDriver::default();
        driver.track(queue(1), at(1_000), || ());
        // Tracking the first queue, scheduling it, and stopping each end one wait.
        driver.wait(LONG).await;
        driver.schedule_no_later_than(queue(1), at(1 << 40));
        driver.wait(LONG).await;
        driver.stop();
        driver.wait(LONG).await;
        assert!(driver.is_stopped());
    }

    #[tokio::test]
    async fn a_dropped_queue_is_untracked_and_wakes_its_watches() {
        let driver = WatchDriver::default();
        let mut watch = driver.registry().watch(queue(1), WatchFor::Claimable);
        driver.track(queue(1), at(1_000), || 7);
        assert_eq!(driver.untrack_idle(), []);
        assert_eq!(driver.notify_dropped(queue(1)), Some(7));
        assert_eq!(driver.notify_dropped(queue(1)), None);
        assert!(watch.wait(LONG).await);
    }
}
