//! Group commit: write operations that wait at the same time share a transaction.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    slice::from_mut,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use storage_traits::{Result, support::EventCounters};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::{is_failure, store_error, unavailable, unexpected},
    transaction::Tx,
};

/// Operations that share a transaction at most.
const MAX_BATCH: usize = 256;
/// Size of the write-ahead log, in bytes, from which on the writer truncates it.
const MAX_WAL_BYTES: u64 = 64 << 20;
/// Number of batches after which the writer checks the size of the write-ahead log.
const WAL_CHECK_INTERVAL: u32 = 256;
/// How long the writer spins for the next operation before its thread sleeps.
const SPIN_TIME: Duration = Duration::from_micros(50);

pub(super) enum WriterCommand {
    Run(Box<dyn WriteOp>),
    Stop,
}

/// A write operation that waits for the writer.
pub(super) trait WriteOp: Send {
    /// Runs the operation. Returns `false` if the database failed, so that the transaction must be
    /// rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;

    /// Sends the result to the caller, after the commit or its failure.
    fn reply(self: Box<Self>, committed: Result<()>);
}

/// Receives what each transaction committed.
pub(super) trait CommitListener {
    /// Called after the commit, before the callers of the operations get their results.
    fn on_commit(&self, tx: &Tx<'_>);
}

/// An operation with the channel on which its caller waits.
pub(super) struct PendingWrite<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> PendingWrite<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
{
    pub(super) fn boxed(work: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn WriteOp> {
        Box::new(Self { work, outcome: None, reply })
    }
}

impl<T, F> WriteOp for PendingWrite<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // An operation is skipped if its caller was cancelled while it waited.
        self.outcome = (!self.reply.is_closed()).then(|| {
            catch_unwind(AssertUnwindSafe(|| (self.work)(tx)))
                .unwrap_or_else(|_| Err(unexpected("a write operation panicked")))
        });
        !matches!(&self.outcome, Some(Err(error)) if is_failure(error))
    }

    fn reply(self: Box<Self>, committed: Result<()>) {
        let result = match (self.outcome, committed) {
            (Some(Err(own)), Err(_)) if is_failure(&own) => Err(own),
            (_, Err(failed)) => Err(failed),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => return,
        };
        // The send fails if the caller was cancelled meanwhile: its result is not needed.
        drop(self.reply.send(result));
    }
}

/// The writer's connection, and what it reports to.
struct Writer<'a, L> {
    connection: &'a Connection,
    counters: &'a EventCounters,
    listener: &'a L,
}

/// Runs operations in batches until a `Stop`, or until every sender is dropped.
pub(super) fn write_loop(
    connection: &Connection,
    counters: &EventCounters,
    listener: &impl CommitListener,
    mut commands: mpsc::Receiver<WriterCommand>,
) {
    let writer = Writer { connection, counters, listener };
    let mut received = Vec::with_capacity(MAX_BATCH);
    let mut stop = false;
    let mut batches_until_check = WAL_CHECK_INTERVAL;
    while !stop && receive(&mut commands, &mut received) {
        let mut batch = Vec::with_capacity(received.len());
        for command in received.drain(..) {
            match command {
                WriterCommand::Run(operation) => batch.push(operation),
                WriterCommand::Stop => stop = true,
            }
        }
        writer.run_batch(batch);
        batches_until_check -= 1;
        if batches_until_check == 0 {
            batches_until_check = WAL_CHECK_INTERVAL;
            bound_wal(connection);
        }
    }
}

/// Receives the commands that wait. If none does, spins for a moment before the thread sleeps: a
/// client that just got its result often sends the next command sooner than the thread would wake.
fn receive(
    commands: &mut mpsc::Receiver<WriterCommand>,
    received: &mut Vec<WriterCommand>,
) -> bool {
    let start = Instant::now();
    while commands.is_empty() && !commands.is_closed() && start.elapsed() < SPIN_TIME {
        std::hint::spin_loop();
    }
    commands.blocking_recv_many(received, MAX_BATCH) > 0
}

/// Truncates the write-ahead log if it is too large. SQLite cannot restart the log by itself while
/// reads overlap without a gap.
fn bound_wal(connection: &Connection) {
    let wal = connection.path().map(|path| format!("{path}-wal"));
    let size = wal.and_then(|wal| std::fs::metadata(wal).ok()).map_or(0, |wal| wal.len());
    if size <= MAX_WAL_BYTES {
        return;
    }
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0));
    if busy != Ok(false) {
        tracing::warn!(?busy, size, "cannot truncate the write-ahead log; will retry");
    }
}

impl<L: CommitListener> Writer<'_, L> {
    /// Runs operations in one transaction. If it fails, runs each in a transaction of its own, so
    /// that an operation which cannot succeed does not fail the others.
    fn run_batch(&self, mut batch: Vec<Box<dyn WriteOp>>) {
        let operations = batch.len();
        if !self.connection.is_autocommit() {
            // An earlier ROLLBACK failed; no transaction can begin before it succeeds.
            drop(self.execute("ROLLBACK"));
        }
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            // Another process is writing, or the file is unavailable. No operation is the cause, so
            // they are not tried one by one.
            tracing::warn!(%error, operations, "cannot begin a transaction");
            let reason = error.to_string();
            for operation in batch {
                operation.reply(Err(unavailable(reason.as_str())));
            }
            return;
        }
        match self.run_and_commit(&mut batch) {
            Ok(()) => batch.into_iter().for_each(|operation| operation.reply(Ok(()))),
            Err(error) if operations <= 1 => {
                if let Some(operation) = batch.pop() {
                    operation.reply(Err(error));
                }
            }
            Err(error) => {
                tracing::debug!(%error, operations, "a shared transaction failed");
                for mut operation in batch {
                    let committed = self
                        .execute("BEGIN IMMEDIATE")
                        .and_then(|()| self.run_and_commit(from_mut(&mut operation)));
                    operation.reply(committed);
                }
            }
        }
    }

    /// Runs operations in the transaction that has begun, and commits it or rolls it back.
    fn run_and_commit(&self, batch: &mut [Box<dyn WriteOp>]) -> Result<()> {
        let mut tx = Tx::new(self.connection);
        let committed = batch
            .iter_mut()
            .all(|operation| operation.run(&mut tx))
            .then_some(())
            .ok_or_else(|| unexpected("a write operation failed"))
            .and_then(|()| tx.write_rows())
            .and_then(|()| self.execute("COMMIT"));
        match &committed {
            Ok(()) => {
                self.counters.add(tx.events);
                self.listener.on_commit(&tx);
            }
            Err(_) if self.connection.is_autocommit() => {} // SQLite has rolled back already
            Err(_) => self.execute("ROLLBACK")?,
        }
        committed
    }

    fn execute(&self, sql: &str) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(store_error)?;
        statement.execute(()).map(drop).map_err(store_error)
    }
}
