use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::domain::{Incarnation, Timestamp};

/// Due times of watched queues: the times at which their next delay, claim or ttl ends.
///
/// Holds a `T` for each queue. Has no task, lock or clock of its own: a backend that is driven by a
/// thread wraps it in a mutex, one that is driven by a task uses
/// [`WatchDriver`](super::WatchDriver).
#[derive(Debug)]
pub struct WatchSchedule<T> {
    queues: HashMap<Incarnation, Scheduled<T>>,
    due: BTreeSet<(Timestamp, Incarnation)>,
    /// The pool's time as it was last set, and the instant at which it was set.
    clock: Option<(Instant, Timestamp)>,
}

#[derive(Debug)]
struct Scheduled<T> {
    value: T,
    due_at: Option<Timestamp>,
    last_watched: Instant,
}

impl<T> Default for WatchSchedule<T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), due: BTreeSet::new(), clock: None }
    }
}

impl<T> WatchSchedule<T> {
    /// Sets the pool's time.
    pub fn set_time(&mut self, now: Timestamp) {
        self.clock = Some((Instant::now(), now));
    }

    /// Returns the pool's time: the time last set plus the time that has passed since. Returns the
    /// earliest representable time if none was set.
    pub fn now(&self) -> Timestamp {
        let set = self.clock.map(|(at, time)| time.plus(at.elapsed()));
        set.unwrap_or(Timestamp::from_millis(i64::MIN))
    }

    /// Adds a queue without a due time, or marks a tracked queue as just watched.
    pub fn track(&mut self, queue: Incarnation, value: impl FnOnce() -> T) {
        let last_watched = Instant::now();
        self.queues
            .entry(queue)
            .or_insert_with(|| Scheduled { value: value(), due_at: None, last_watched })
            .last_watched = last_watched;
    }

    /// Sets the due time of a tracked queue; returns whether this changed it.
    pub fn schedule(&mut self, queue: Incarnation, due_at: Timestamp) -> bool {
        let Some(scheduled) = self.queues.get_mut(&queue) else { return false };
        let before = scheduled.due_at.replace(due_at);
        if before == Some(due_at) {
            return false;
        }
        if let Some(before) = before {
            self.due.remove(&(before, queue));
        }
        self.due.insert((due_at, queue));
        true
    }

    /// Sets the due time of a tracked queue if that is earlier than its present one, or if it has
    /// none; returns whether this changed it.
    pub fn schedule_no_later_than(&mut self, queue: Incarnation, due_at: Timestamp) -> bool {
        let known = self.queues.get(&queue).and_then(|scheduled| scheduled.due_at);
        known.is_none_or(|known| due_at < known) && self.schedule(queue, due_at)
    }

    /// Removes the due times up to the pool's time and returns their queues, earliest first. The
    /// queues stay tracked.
    pub fn take_due(&mut self) -> Vec<Incarnation> {
        let now = self.now();
        let mut taken = Vec::new();
        while let Some((due_at, queue)) = self.due.first().copied()
            && due_at <= now
        {
            self.due.pop_first();
            if let Some(scheduled) = self.queues.get_mut(&queue) {
                scheduled.due_at = None;
            }
            taken.push(queue);
        }
        taken
    }

    /// Returns the time until the next due time, at most `at_most`. At least a millisecond, so that
    /// the caller does not spin on a clock that stands still.
    pub fn until_due(&self, at_most: Duration) -> Duration {
        let next = self.due.first().map(|(due_at, _)| due_at.since(self.now()));
        next.unwrap_or(at_most).min(at_most).max(Duration::from_millis(1))
    }

    /// Removes a queue and returns its value; `None` if it is not tracked.
    pub fn untrack(&mut self, queue: Incarnation) -> Option<T> {
        let scheduled = self.queues.remove(&queue)?;
        if let Some(due_at) = scheduled.due_at {
            self.due.remove(&(due_at, queue));
        }
        Some(scheduled.value)
    }

    /// Removes and returns the queues for which `is_watched` has been `false` for `idle_timeout`.
    pub fn untrack_idle(
        &mut self,
        idle_timeout: Duration,
        is_watched: impl Fn(Incarnation) -> bool,
    ) -> Vec<(Incarnation, T)> {
        let mut idle = Vec::new();
        for (queue, scheduled) in &mut self.queues {
            if is_watched(*queue) {
                scheduled.last_watched = Instant::now();
            } else if scheduled.last_watched.elapsed() >= idle_timeout {
                idle.push(*queue);
            }
        }
        idle.into_iter().filter_map(|queue| Some((queue, self.untrack(queue)?))).collect()
    }

    /// Returns whether no queue is tracked.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Returns the value of a tracked queue.
    pub fn get(&self, queue: Incarnation) -> Option<&T> {
        self.queues.get(&queue).map(|scheduled| &scheduled.value)
    }

    /// Returns the value of a tracked queue for a change.
    pub fn get_mut(&mut self, queue: Incarnation) -> Option<&mut T> {
        self.queues.get_mut(&queue).map(|scheduled| &mut scheduled.value)
    }

    /// Returns the tracked queues with their values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Incarnation, &T)> {
        self.queues.iter().map(|(queue, scheduled)| (*queue, &scheduled.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: i64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn tracking(numbers: &[i64]) -> WatchSchedule<i64> {
        let mut schedule = WatchSchedule::default();
        schedule.set_time(at(1_000));
        for number in numbers {
            schedule.track(queue(*number), || *number);
        }
        schedule
    }

    #[test]
    fn due_queues_are_taken_once_and_in_order() {
        let mut schedule = tracking(&[1, 2, 3]);
        assert!(schedule.schedule(queue(1), at(900)));
        assert!(schedule.schedule(queue(2), at(800)));
        assert!(schedule.schedule(queue(3), at(1 << 40)));
        assert_eq!(schedule.take_due(), [queue(2), queue(1)]);
        assert_eq!(schedule.take_due(), []);
    }

    #[test]
    fn a_later_time_does_not_replace_an_earlier_one_unless_it_is_set() {
        let mut schedule = tracking(&[1]);
        assert!(schedule.schedule_no_later_than(queue(1), at(900)));
        assert!(!schedule.schedule_no_later_than(queue(1), at(950)));
        assert!(!schedule.schedule(queue(1), at(900)));
        assert!(schedule.schedule(queue(1), at(1 << 40)));
        assert_eq!(schedule.take_due(), []);
        assert!(schedule.schedule_no_later_than(queue(1), at(900)));
        assert_eq!(schedule.take_due(), [queue(1)]);
    }

    #[test]
    fn a_queue_that_is_not_tracked_has_no_due_time() {
        let mut schedule = tracking(&[1]);
        assert!(!schedule.schedule(queue(2), at(900)));
        schedule.schedule(queue(1), at(900));
        assert_eq!(schedule.untrack(queue(1)), Some(1));
        assert_eq!(schedule.untrack(queue(1)), None);
        assert_eq!(schedule.take_due(), []);
        assert!(schedule.is_empty());
    }

    #[test]
    fn idle_queues_are_returned_with_their_values() {
        let mut schedule = tracking(&[1, 2]);
        schedule.schedule(queue(2), at(900));
        let idle = schedule.untrack_idle(Duration::ZERO, |watched| watched == queue(1));
        assert_eq!(idle, [(queue(2), 2)]);
        assert_eq!(schedule.iter().collect::<Vec<_>>(), [(queue(1), &1)]);
        assert_eq!(schedule.take_due(), []);
    }

    #[test]
    fn the_wait_ends_at_the_next_due_time() {
        let mut schedule = tracking(&[1]);
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(1_000));
        assert_eq!(schedule.until_due(long), long);
        schedule.schedule(queue(1), at(900));
        assert_eq!(schedule.until_due(long), short);
        schedule.schedule(queue(1), at(500_000));
        assert!((short..long).contains(&schedule.until_due(long)));
    }
}
