//! Wakes those who wait for a queue when time alone gives them something: one thread for all
//! queues that are watched.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    support::WatchRegistry,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::store_error,
    pool::settle_until,
    writer::{Command, NEVER, Tx, Waiting},
};

/// How often to look whether another process wrote to the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When watched queues have something due.
#[derive(Default)]
pub(super) struct Alarm {
    pub(super) registry: WatchRegistry,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// The time of the pool at some moment.
    clock: Option<(Instant, Timestamp)>,
    due: BTreeSet<(i64, Incarnation)>,
    /// The same by queue.
    of: HashMap<Incarnation, i64>,
}

/// What the thread has to do.
enum Duty {
    /// Something of a watched queue is due.
    Settle(Incarnation, Timestamp),
    /// It is time to look whether another process wrote to the file.
    Look,
}

impl State {
    fn set(&mut self, queue: Incarnation, due: i64) {
        self.forget(queue);
        if due < NEVER {
            self.of.insert(queue, due);
            self.due.insert((due, queue));
        }
    }

    fn forget(&mut self, queue: Incarnation) {
        if let Some(due) = self.of.remove(&queue) {
            self.due.remove(&(due, queue));
        }
    }

    fn now(&self) -> Timestamp {
        self.clock
            .map_or(Timestamp::from_millis(i64::MIN), |(then, time)| time.plus(then.elapsed()))
    }
}

impl Alarm {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Takes the time from somebody who knows it.
    pub(super) fn synchronize(&self, now: Timestamp) {
        self.state().clock = Some((Instant::now(), now));
    }

    /// What the writer has just committed: the next moment at which something of a queue is due.
    pub(super) fn set(&self, queue: Incarnation, due: i64) {
        let mut state = self.state();
        if state.of.get(&queue) != Some(&due) {
            state.set(queue, due);
            self.changed.notify_one();
        }
    }

    /// What somebody has read, maybe a while ago: counts if it is earlier than what is known.
    pub(super) fn lower(&self, queue: Incarnation, due: i64) {
        let mut state = self.state();
        if state.of.get(&queue).is_none_or(|known| *known > due) {
            state.set(queue, due);
            // Also if nothing is due: from now on there is somebody to look for.
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_one();
    }

    /// Settles watched queues when they are due, and rings where that gives somebody something.
    pub(super) fn run(&self, writer: &mpsc::WeakSender<Command>) {
        let (mut version, mut looked) = (None, Instant::now());
        while let Some(duty) = self.next(&mut looked) {
            let outcome = match duty {
                Duty::Settle(queue, now) => {
                    let next = step(writer, move |tx| settle_until(tx, queue, now));
                    // If it failed it is tried again.
                    let again = now.plus(LOOK_EVERY).as_millis();
                    let due = next.as_ref().map_or(again, |next| next.unwrap_or(NEVER));
                    self.lower(queue, due);
                    next.map(drop)
                }
                Duty::Look => step(writer, |tx| data_version(tx.connection)).map(|seen| {
                    if version.replace(seen).is_some_and(|before| before != seen) {
                        self.registry.notify_everything();
                    }
                }),
            };
            if let Err(error) = outcome {
                // Those who wait look again when their patience ends.
                tracing::warn!(%error, "a watched queue cannot be looked at");
            }
        }
    }

    /// Waits for something to do; `None` when it is stopped.
    fn next(&self, looked: &mut Instant) -> Option<Duty> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            let now = state.now();
            let first = state.due.first().copied();
            if let Some((_, queue)) = first.filter(|(due, _)| *due <= now.as_millis()) {
                state.forget(queue);
                if self.registry.is_watched(queue) {
                    return Some(Duty::Settle(queue, now));
                }
                continue;
            }
            if !self.registry.has_watches() {
                state.due.clear();
                state.of.clear();
                state = self.changed.wait(state).expect("no holder panics");
                continue;
            }
            let Some(until_look) = LOOK_EVERY.checked_sub(looked.elapsed()) else {
                *looked = Instant::now();
                return Some(Duty::Look);
            };
            let until_due = first.map(|(due, _)| Timestamp::from_millis(due).since(now));
            let patience = until_due.map_or(until_look, |until_due| until_due.min(until_look));
            // At least a moment, so that a clock which stands still does not make it spin.
            let patience = patience.max(Duration::from_millis(1));
            state = self.changed.wait_timeout(state, patience).expect("no holder panics").0;
        }
    }
}

/// Has the writer do a step; an error if there is no writer any more.
fn step<T: Send + 'static>(
    writer: &mpsc::WeakSender<Command>,
    work: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let closed = || super::error::unavailable("the file is closed");
    let (reply, answer) = oneshot::channel();
    let writer = writer.upgrade().ok_or_else(closed)?;
    writer.blocking_send(Command::Run(Waiting::boxed(work, reply))).map_err(|_| closed())?;
    answer.blocking_recv().unwrap_or_else(|_| Err(closed()))
}

/// A number that changes when another connection has written.
fn data_version(connection: &Connection) -> Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(store_error)
}

/// The alarm and its thread's work.
pub(super) fn thread(
    alarm: &Arc<Alarm>,
    writer: &mpsc::Sender<Command>,
) -> impl FnOnce() + Send + 'static {
    let (alarm, writer) = (Arc::clone(alarm), writer.downgrade());
    move || alarm.run(&writer)
}
