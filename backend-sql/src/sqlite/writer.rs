//! Group commit: steps that wait at the same time share a transaction.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    slice::from_mut,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    pool::EventCounts,
    support::SlidingMinuteCounter,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    alarm::Alarm,
    error::{is_failure, store_error, unavailable, unexpected},
};

/// How many steps share a transaction at the most.
const MAX_BATCH: usize = 256;
/// Bytes of the write-ahead log beyond which it is emptied by force.
const MAX_LOG: u64 = 64 << 20;
/// After how many transactions the size of the log is looked at.
const LOG_LOOK: u32 = 256;
/// How long the writer watches for the next step before it sleeps.
const WATCH: Duration = Duration::from_micros(50);
/// Stands for "nothing is due".
pub(super) const NEVER: i64 = i64::MAX;

pub(super) enum Command {
    Run(Box<dyn Step>),
    Stop,
}

/// A step that waits for the writer.
pub(super) trait Step: Send {
    /// Does the work; `false` if the database failed, so that the transaction is void.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;

    /// Tells the one who waits how it ended, with the commit or without.
    fn answer(self: Box<Self>, committed: Result<()>);
}

pub(super) struct Waiting<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Waiting<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
{
    pub(super) fn boxed(work: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn Step> {
        Box::new(Self { work, outcome: None, reply })
    }
}

impl<T, F> Step for Waiting<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // Whoever asked may have gone while the step waited: then it need not be done.
        self.outcome = (!self.reply.is_closed()).then(|| {
            catch_unwind(AssertUnwindSafe(|| (self.work)(tx)))
                .unwrap_or_else(|_| Err(unexpected("a step panicked")))
        });
        !matches!(&self.outcome, Some(Err(error)) if is_failure(error))
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let result = match (self.outcome, committed) {
            (Some(Err(own)), Err(_)) if is_failure(&own) => Err(own),
            (_, Err(failed)) => Err(failed),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => return,
        };
        drop(self.reply.send(result)); // as above, the asker may be gone
    }
}

/// What the steps did on the side since the file was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    expired: AtomicU64,
    dead_lettered: AtomicU64,
}

impl Counters {
    fn add(&self, tally: EventCounts) {
        self.expired.fetch_add(tally.expired, Ordering::Relaxed);
        self.dead_lettered.fetch_add(tally.dead_lettered, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> EventCounts {
        EventCounts {
            expired: self.expired.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn write_loop(
    connection: &Connection,
    counters: &Counters,
    alarm: &Alarm,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut received = Vec::with_capacity(MAX_BATCH);
    let mut stop = false;
    let mut until_look = LOG_LOOK;
    while !stop && receive(&mut commands, &mut received) {
        let mut steps = Vec::with_capacity(received.len());
        for command in received.drain(..) {
            match command {
                Command::Run(waiting) => steps.push(waiting),
                Command::Stop => stop = true,
            }
        }
        run(connection, counters, alarm, steps);
        until_look -= 1;
        if until_look == 0 {
            until_look = LOG_LOOK;
            bound_log(connection);
        }
    }
}

/// Empties the write-ahead log if it has grown: readers that follow each other without a gap keep
/// the database from starting it anew by itself.
fn bound_log(connection: &Connection) {
    let log = connection.path().map(|path| format!("{path}-wal"));
    let size = log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |log| log.len());
    if size <= MAX_LOG {
        return;
    }
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0));
    if busy != Ok(false) {
        tracing::warn!(?busy, size, "the write-ahead log cannot be emptied");
    }
}

/// Takes what waits; if nothing does, watches for a moment before it goes to sleep, since waking up
/// takes longer than a client that was just answered takes to ask again.
fn receive(commands: &mut mpsc::Receiver<Command>, received: &mut Vec<Command>) -> bool {
    let start = Instant::now();
    while commands.is_empty() && !commands.is_closed() && start.elapsed() < WATCH {
        std::hint::spin_loop();
    }
    commands.blocking_recv_many(received, MAX_BATCH) > 0
}

/// Runs steps in one transaction; if that fails, each in its own, so that one step that cannot be
/// done does not take its neighbours with it.
fn run(connection: &Connection, counters: &Counters, alarm: &Alarm, mut steps: Vec<Box<dyn Step>>) {
    if !connection.is_autocommit() {
        // A rollback has failed before; without it nothing goes on.
        drop(execute(connection, "ROLLBACK"));
    }
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        // Another process writes, or the file is out of reach: nobody's own fault.
        tracing::warn!(%error, steps = steps.len(), "a transaction cannot begin");
        let reason = error.to_string();
        return steps.into_iter().for_each(|step| step.answer(Err(unavailable(reason.as_str()))));
    }
    match finish(connection, counters, alarm, &mut steps) {
        Ok(()) => steps.into_iter().for_each(|step| step.answer(Ok(()))),
        Err(error) if steps.len() <= 1 => {
            if let Some(step) = steps.pop() {
                step.answer(Err(error));
            }
        }
        Err(error) => {
            tracing::debug!(%error, steps = steps.len(), "a shared transaction failed");
            for mut step in steps {
                let alone = execute(connection, "BEGIN IMMEDIATE")
                    .and_then(|()| finish(connection, counters, alarm, from_mut(&mut step)));
                step.answer(alone);
            }
        }
    }
}

/// Runs steps in the transaction that has begun, and ends it.
fn finish(
    connection: &Connection,
    counters: &Counters,
    alarm: &Alarm,
    steps: &mut [Box<dyn Step>],
) -> Result<()> {
    let mut tx = Tx {
        connection,
        tally: EventCounts::default(),
        queues: HashMap::new(),
        dropped: Vec::new(),
        readings: HashMap::new(),
    };
    let ran = steps
        .iter_mut()
        .all(|step| step.run(&mut tx))
        .then_some(())
        .ok_or_else(|| unexpected("a step failed"))
        .and_then(|()| tx.flush())
        .and_then(|()| execute(connection, "COMMIT"));
    match &ran {
        Ok(()) => {
            counters.add(tx.tally);
            tx.ring(alarm);
        }
        Err(_) if connection.is_autocommit() => {} // rolled back by the database
        Err(_) => execute(connection, "ROLLBACK")?,
    }
    ran
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql).and_then(|mut s| s.execute(())).map_err(store_error)?;
    Ok(())
}

/// A queue's row, as the transaction at work sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueRow {
    pub(super) id: i64,
    pub(super) incarnation: Incarnation,
    pub(super) last_sequence: i64,
    pub(super) ready: i64,
    pub(super) delayed: i64,
    pub(super) claimed: i64,
    /// Messages with an ordering key that are free.
    pub(super) in_line: i64,
    pub(super) lines: i64,
    /// Lines that can be claimed from.
    pub(super) open_lines: i64,
    /// The last turn that was given to a line.
    turns: i64,
    /// The turn of the messages without a key, which together are like one line.
    pub(super) plain_turn: i64,
    /// How many groups read it.
    pub(super) groups: i64,
    /// The queue that it is a group's reading of.
    pub(super) mirrors: Option<Incarnation>,
    /// What a reading has still to copy.
    pub(super) fill: Option<Fill>,
    pub(super) next_due: i64,
    /// Where it keeps what it retains.
    pub(super) log: Option<Incarnation>,
    /// How many of its messages are dead letters.
    pub(super) dead_letters: i64,
    /// From when on the next redriven message may be visible.
    pub(super) next_redrive: i64,
    /// What consumers were done with.
    pub(super) completed: SlidingMinuteCounter,
}

/// A range of messages of a queue, and since when they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) after: i64,
    pub(super) up_to: i64,
    pub(super) since: i64,
}

impl QueueRow {
    /// Notes that something of the queue will be due.
    pub(super) fn due(&mut self, at: i64) {
        self.next_due = self.next_due.min(at);
    }

    /// The last turn, for a line that goes to the end.
    pub(super) const fn next_turn(&mut self) -> i64 {
        self.turns += 1;
        self.turns
    }

    /// The incarnation that the ids of its messages carry.
    pub(super) fn ids(&self) -> Incarnation {
        self.mirrors.unwrap_or(self.incarnation)
    }

    /// From how many sides messages can be claimed.
    pub(super) const fn claimable(&self) -> i64 {
        self.ready + self.open_lines
    }

    /// Whether time has changed anything that the rows do not show yet.
    pub(super) const fn is_due(&self, now: Timestamp) -> bool {
        self.next_due <= now.as_millis()
    }
}

pub(super) fn read_queue_row(
    connection: &Connection,
    incarnation: Incarnation,
) -> Result<Option<QueueRow>> {
    connection
        .prepare_cached(
            "SELECT id, last_sequence, ready, delayed, claimed, next_due, in_line, lines, open_lines,
                 turns, plain_turn, groups, mirrors, fill_after, fill_up_to, fill_since, log,
                 next_redrive, minute, handled, handled_before, dead_letters
             FROM pool_queue WHERE incarnation = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([incarnation.get()], |row| {
                    Ok(QueueRow {
                        id: row.get(0)?,
                        incarnation,
                        last_sequence: row.get(1)?,
                        ready: row.get(2)?,
                        delayed: row.get(3)?,
                        claimed: row.get(4)?,
                        next_due: row.get(5)?,
                        in_line: row.get(6)?,
                        lines: row.get(7)?,
                        open_lines: row.get(8)?,
                        turns: row.get(9)?,
                        plain_turn: row.get(10)?,
                        groups: row.get(11)?,
                        mirrors: row.get::<_, Option<i64>>(12)?.and_then(Incarnation::new),
                        fill: match row.get(13)? {
                            Some(after) => {
                                Some(Fill { after, up_to: row.get(14)?, since: row.get(15)? })
                            }
                            None => None,
                        },
                        log: row.get::<_, Option<i64>>(16)?.and_then(Incarnation::new),
                        next_redrive: row.get(17)?,
                        completed: SlidingMinuteCounter {
                            minute: row.get(18)?,
                            count: row.get(19)?,
                            previous: row.get(20)?,
                        },
                        dead_letters: row.get(21)?,
                    })
                })
                .optional()
        })
        .map_err(store_error)
}

/// The transaction that steps share. It keeps the rows of the queues that they touch, so that a
/// hundred posts to one queue rewrite its counters once.
pub(super) struct Tx<'c> {
    pub(super) connection: &'c Connection,
    /// What the steps did on the side; counted once it is committed.
    pub(super) tally: EventCounts,
    queues: HashMap<Incarnation, (QueueRow, Saved)>,
    dropped: Vec<Incarnation>,
    /// The readings of the groups of queues.
    readings: HashMap<Incarnation, Rc<[Incarnation]>>,
}

type Saved = Option<QueueRow>;

impl Tx<'_> {
    /// The row of a queue, if the pool knows it.
    pub(super) fn queue(&mut self, incarnation: Incarnation) -> Result<Option<QueueRow>> {
        if let Some((row, _)) = self.queues.get(&incarnation) {
            return Ok(Some(*row));
        }
        let row = read_queue_row(self.connection, incarnation)?;
        if let Some(row) = row {
            self.queues.insert(incarnation, (row, Some(row)));
        }
        Ok(row)
    }

    /// Keeps a changed row; it is written with the commit.
    pub(super) fn put(&mut self, row: QueueRow) {
        self.queues.entry(row.incarnation).or_insert((row, None)).0 = row;
    }

    /// What the groups of a queue read from.
    pub(super) fn readings(&mut self, queue: Incarnation) -> Result<Rc<[Incarnation]>> {
        if let Some(readings) = self.readings.get(&queue) {
            return Ok(Rc::clone(readings));
        }
        let found: Vec<i64> = self
            .connection
            .prepare_cached("SELECT reading FROM pool_group WHERE queue = ?1")
            .and_then(|mut statement| {
                statement.query_map([queue.get()], |row| row.get(0))?.collect()
            })
            .map_err(store_error)?;
        let readings: Rc<[_]> = found.into_iter().filter_map(Incarnation::new).collect();
        self.readings.insert(queue, Rc::clone(&readings));
        Ok(readings)
    }

    /// Forgets them, because the groups have changed.
    pub(super) fn forget_readings(&mut self, queue: Incarnation) {
        self.readings.remove(&queue);
    }

    /// Forgets a row, because its queue is dropped.
    pub(super) fn forget(&mut self, incarnation: Incarnation) {
        self.queues.remove(&incarnation);
        self.dropped.push(incarnation);
    }

    /// Tells those who wait what was committed.
    fn ring(&self, alarm: &Alarm) {
        if !alarm.registry.has_watches() {
            return;
        }
        self.dropped.iter().for_each(|queue| alarm.registry.notify_all(*queue));
        for (queue, (row, saved)) in &self.queues {
            if !alarm.registry.is_watched(*queue) {
                continue;
            }
            let posted = saved.is_none_or(|saved| saved.last_sequence < row.last_sequence);
            if posted {
                alarm.registry.notify_posted(*queue);
            }
            // Compared with the start it may be less, and yet have been nothing in between.
            let claimable = row.claimable();
            if *saved != Some(*row) && claimable > 0 {
                alarm.registry.notify_claimable(*queue, usize::try_from(claimable).unwrap_or(0));
            }
            alarm.set(*queue, row.next_due);
        }
    }

    fn flush(&mut self) -> Result<()> {
        for (row, saved) in self.queues.values() {
            if *saved != Some(*row) {
                self.connection
                    .prepare_cached(
                        "UPDATE pool_queue SET last_sequence = ?2, ready = ?3, delayed = ?4,
                         claimed = ?5, next_due = ?6, in_line = ?7, lines = ?8, open_lines = ?9,
                         turns = ?10, plain_turn = ?11, groups = ?12, fill_after = ?13,
                         log = ?14, next_redrive = ?15, minute = ?16, handled = ?17,
                         handled_before = ?18, dead_letters = ?19
                         WHERE id = ?1",
                    )
                    .and_then(|mut statement| {
                        statement.execute(params![
                            row.id,
                            row.last_sequence,
                            row.ready,
                            row.delayed,
                            row.claimed,
                            row.next_due,
                            row.in_line,
                            row.lines,
                            row.open_lines,
                            row.turns,
                            row.plain_turn,
                            row.groups,
                            row.fill.map(|fill| fill.after),
                            row.log.map(Incarnation::get),
                            row.next_redrive,
                            row.completed.minute,
                            row.completed.count,
                            row.completed.previous,
                            row.dead_letters
                        ])
                    })
                    .map_err(store_error)?;
            }
        }
        Ok(())
    }
}
