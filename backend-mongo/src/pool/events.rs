//! Where committed changes are published: the watches of this node, and the counters.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use storage_traits::{
    domain::{Incarnation, Timestamp},
    support::{EventCounters, WatchDriver},
};

use super::{bucket::NEVER, unit_of_work::UnitOfWork};

/// Plain posts that were committed.
#[derive(Clone, Copy)]
pub(super) struct PostedBatch {
    pub(super) first: i64,
    pub(super) count: i64,
    /// How many of them can be claimed.
    pub(super) ready: i64,
    /// When the first of them is due.
    pub(super) due: i64,
}

/// How far a watched queue has come, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueProgress {
    pub(super) revision: i64,
    pub(super) tail: i64,
}

/// What a commit of another node has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) changed: bool,
    pub(super) posted: bool,
}

/// Publishes committed changes to the watches and the counters of this node.
#[derive(Default)]
pub(super) struct EventSink {
    /// The watched groups, each with the id of its queue.
    pub(super) watches: WatchDriver<i64>,
    progress: Mutex<HashMap<i64, QueueProgress>>,
    pub(super) counters: EventCounters,
}

impl EventSink {
    fn progress(&self) -> MutexGuard<'_, HashMap<i64, QueueProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a unit of work of this node that was committed with this revision.
    pub(super) fn publish(&self, unit: &UnitOfWork<'_>, revision: i64) {
        if !self.watches.registry().has_watches() {
            return;
        }
        if let Some(known) = self.progress().get_mut(&unit.queue_id)
            && known.revision == revision - 1
        {
            // No other node has committed in between.
            known.revision = revision;
        }
        for (group_id, count) in &unit.newly_claimable {
            self.notify_claimable(*group_id, *count);
        }
        for (group_id, due) in &unit.next_due {
            self.schedule_no_later_than(*group_id, *due);
        }
        unit.deleted_groups.iter().for_each(|group_id| self.notify_dropped(*group_id));
        unit.posted.iter().for_each(|group_id| self.notify_posted(*group_id));
    }

    /// Publishes plain posts of this node that were committed.
    pub(super) fn publish_posts(&self, queue_id: i64, group_ids: &[i64], batch: PostedBatch) {
        let PostedBatch { first, count, ready, due } = batch;
        if !self.watches.registry().has_watches() {
            return;
        }
        if let Some(known) = self.progress().get_mut(&queue_id)
            && known.tail == first - 1
        {
            // No other node has posted in between.
            known.tail += count;
        }
        for group_id in group_ids {
            self.notify_claimable(*group_id, usize::try_from(ready).unwrap_or(0));
            self.notify_posted(*group_id);
            self.schedule_no_later_than(*group_id, due);
        }
    }

    pub(super) fn notify_claimable(&self, group_id: i64, count: usize) {
        if let Some(group) = Incarnation::new(group_id) {
            self.watches.registry().notify_claimable(group, count);
        }
    }

    pub(super) fn notify_posted(&self, group_id: i64) {
        if let Some(group) = Incarnation::new(group_id) {
            self.watches.registry().notify_posted(group);
        }
    }

    /// Wakes all watches of a queue or group that was dropped.
    pub(super) fn notify_dropped(&self, group_id: i64) {
        if let Some(group) = Incarnation::new(group_id) {
            self.watches.notify_dropped(group);
        }
    }

    /// Schedules the next check of a watched group.
    pub(super) fn schedule_no_later_than(&self, group_id: i64, due: i64) {
        if let Some(group) = Incarnation::new(group_id)
            && due < NEVER
        {
            self.watches.schedule_no_later_than(group, Timestamp::from_millis(due));
        }
    }

    /// Schedules a group that could not be read for the next poll.
    pub(super) fn schedule_retry(&self, group_id: i64) {
        if let Some(group) = Incarnation::new(group_id) {
            self.watches.schedule_retry(group);
        }
    }

    /// Removes the watched groups that are due, and returns them with their queues.
    pub(super) fn take_due(&self) -> Vec<(i64, i64)> {
        let due = self.watches.take_due();
        let schedule = self.watches.schedule();
        due.into_iter().filter_map(|group| Some((*schedule.get(group)?, group.get()))).collect()
    }

    /// Returns the watched groups of a queue.
    pub(super) fn watched_groups(&self, queue_id: i64) -> Vec<i64> {
        let schedule = self.watches.schedule();
        let groups = schedule.iter().filter(|(_, of)| **of == queue_id);
        groups.map(|(group, _)| group.get()).collect()
    }

    /// Returns the queues that have watched groups, and forgets the progress of all others.
    pub(super) fn watched_queues(&self) -> Vec<i64> {
        let schedule = self.watches.schedule();
        let mut queue_ids: Vec<i64> = schedule.iter().map(|(_, queue_id)| *queue_id).collect();
        drop(schedule);
        queue_ids.sort_unstable();
        queue_ids.dedup();
        self.progress().retain(|queue_id, _| queue_ids.binary_search(queue_id).is_ok());
        queue_ids
    }

    /// Records how far a queue has come, unless that is known.
    pub(super) fn record_progress(&self, queue_id: i64, progress: QueueProgress) {
        self.progress().entry(queue_id).or_insert(progress);
    }

    /// Compares the progress of a queue with what this node knows: what is new was committed by
    /// another node.
    pub(super) fn observe_progress(
        &self,
        queue_id: i64,
        revision: Option<i64>,
        tail: Option<i64>,
    ) -> Observed {
        let mut progress = self.progress();
        let Some(known) = progress.get_mut(&queue_id) else {
            if let (Some(revision), Some(tail)) = (revision, tail) {
                progress.insert(queue_id, QueueProgress { revision, tail });
            }
            return Observed { changed: true, posted: true };
        };
        let committed = revision.is_some_and(|revision| revision > known.revision);
        let posted = tail.is_some_and(|tail| tail > known.tail);
        known.revision = known.revision.max(revision.unwrap_or(0));
        known.tail = known.tail.max(tail.unwrap_or(0));
        Observed { changed: committed || posted, posted }
    }
}
