//! Applies what is due in the watched queues, from one thread, so that a consumer which waits for a
//! queue is notified when a delay or a claim ends.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    pool::{Watch, WatchFor},
    support::{WatchRegistry, WatchSchedule},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::{closed, store_error},
    transaction::Tx,
    writer::{CommitListener, PendingWrite, WriterCommand},
};

/// How often to check whether another process wrote to the file, and how long to wait before a
/// failed task is tried again.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Applies a bounded part of what is due in a queue. Returns when the queue next has something due;
/// `None` if the pool does not know the queue.
pub(super) type ApplyDue = fn(&mut Tx<'_>, Incarnation, Timestamp) -> Result<Option<Timestamp>>;

/// The watches of this node, and when the watched queues have something due.
#[derive(Default)]
pub(super) struct DueTimer {
    registry: WatchRegistry,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    schedule: WatchSchedule<()>,
    stopped: bool,
}

/// Work of the timer thread.
enum TimerTask {
    /// These queues have something due.
    ApplyDue { queues: Vec<Incarnation>, now: Timestamp },
    /// The poll interval is over.
    CheckForOtherWriters,
}

impl DueTimer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Adds a watch. The caller reads the queue's row after that, and passes what it has due to
    /// [`Self::schedule_no_later_than`]: in this order no commit is missed.
    pub(super) fn watch(&self, queue: Incarnation, what: WatchFor, now: Timestamp) -> Watch {
        let watch = self.registry.watch(queue, what);
        let mut state = self.state();
        let was_idle = state.schedule.is_empty();
        state.schedule.set_time(now);
        state.schedule.track(queue, || ());
        if was_idle {
            self.changed.notify_one();
        }
        watch
    }

    /// Returns the watches.
    pub(super) const fn registry(&self) -> &WatchRegistry {
        &self.registry
    }

    /// Sets when a queue has something due, if that is earlier than what is known. The caller may
    /// have read it before the latest commit.
    pub(super) fn schedule_no_later_than(&self, queue: Incarnation, due_at: Timestamp) {
        if self.state().schedule.schedule_no_later_than(queue, due_at) {
            self.changed.notify_one();
        }
    }

    /// Sets when a queue has something due, as it was just committed.
    fn schedule(&self, queue: Incarnation, due_at: Timestamp) {
        if self.state().schedule.schedule(queue, due_at) {
            self.changed.notify_one();
        }
    }

    /// Makes [`Self::run`] return.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_one();
    }

    /// Runs the timer's tasks until it is stopped.
    pub(super) fn run(&self, writer: &mpsc::WeakSender<WriterCommand>, apply_due: ApplyDue) {
        let (mut version, mut last_poll) = (None, Instant::now());
        while let Some(task) = self.next_task(&mut last_poll) {
            match task {
                TimerTask::ApplyDue { queues, now } => {
                    for queue in queues {
                        if self.state().stopped {
                            return;
                        }
                        if self.registry.is_watched(queue) {
                            self.apply_due(writer, apply_due, queue, now);
                        }
                    }
                }
                TimerTask::CheckForOtherWriters => {
                    match write(writer, |tx| data_version(tx.connection)) {
                        Ok(seen) => {
                            if version.replace(seen).is_some_and(|before| before != seen) {
                                self.registry.notify_everything();
                            }
                        }
                        Err(error) => {
                            tracing::warn!(
                                %error,
                                "cannot check whether another process wrote to the file; will retry"
                            );
                        }
                    }
                }
            }
        }
    }

    fn apply_due(
        &self,
        writer: &mpsc::WeakSender<WriterCommand>,
        apply_due: ApplyDue,
        queue: Incarnation,
        now: Timestamp,
    ) {
        match write(writer, move |tx| apply_due(tx, queue, now)) {
            Ok(Some(next)) => self.schedule_no_later_than(queue, next),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    queue.id = queue.get(),
                    %error,
                    "cannot apply what is due in a watched queue; will retry"
                );
                self.schedule_no_later_than(queue, now.plus(POLL_INTERVAL));
            }
        }
    }

    /// Waits for the next task; `None` when the timer is stopped.
    fn next_task(&self, last_poll: &mut Instant) -> Option<TimerTask> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            let queues = state.schedule.take_due();
            if !queues.is_empty() {
                return Some(TimerTask::ApplyDue { queues, now: state.schedule.now() });
            }
            if state.schedule.is_empty() {
                state = self.changed.wait(state).expect("no holder panics");
                continue;
            }
            let Some(until_poll) = POLL_INTERVAL.checked_sub(last_poll.elapsed()) else {
                *last_poll = Instant::now();
                let is_watched = |queue| self.registry.is_watched(queue);
                state.schedule.untrack_idle(Duration::ZERO, is_watched);
                return Some(TimerTask::CheckForOtherWriters);
            };
            let timeout = state.schedule.until_due(until_poll);
            state = self.changed.wait_timeout(state, timeout).expect("no holder panics").0;
        }
    }
}

impl CommitListener for DueTimer {
    /// Notifies the watches of the queues that the transaction changed.
    fn on_commit(&self, tx: &Tx<'_>) {
        if !self.registry.has_watches() {
            return;
        }
        for queue in tx.dropped() {
            self.registry.notify_all(*queue);
        }
        for touched in tx.touched() {
            let (row, queue) = (touched.row, touched.row.incarnation);
            if !self.registry.is_watched(queue) {
                continue;
            }
            let last_before = touched.original.map(|original| original.last_sequence);
            if last_before.is_none_or(|before| before < row.last_sequence) {
                self.registry.notify_posted(queue);
            }
            // Any change counts, not only a higher number: the number may have been lower, even 0,
            // between two operations of the transaction.
            let claimable = row.claimable();
            if touched.has_changed() && claimable > 0 {
                self.registry.notify_claimable(queue, usize::try_from(claimable).unwrap_or(0));
            }
            self.schedule(queue, Timestamp::from_millis(row.next_due));
        }
    }
}

/// Runs an operation on the writer and waits for the result; an error if the writer has ended.
fn write<T: Send + 'static>(
    writer: &mpsc::WeakSender<WriterCommand>,
    work: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, result) = oneshot::channel();
    let writer = writer.upgrade().ok_or_else(closed)?;
    let command = WriterCommand::Run(PendingWrite::boxed(work, reply));
    writer.blocking_send(command).map_err(|_| closed())?;
    result.blocking_recv().unwrap_or_else(|_| Err(closed()))
}

/// Returns a number that changes when another connection has written to the file.
fn data_version(connection: &Connection) -> Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(store_error)
}
