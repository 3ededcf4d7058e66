//! The open file: its writer thread, its reader threads and its timer thread.

use std::{
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use storage_traits::{
    Result, StoreError,
    pool::Durability,
    support::{EventCounters, EventCounts},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    connection::{connect, migrate},
    due_timer::{ApplyDue, DueTimer},
    error::{BACKEND, closed, unavailable},
    options::SqliteOptions,
    transaction::Tx,
    writer::{PendingWrite, WriterCommand, write_loop},
};

/// Write operations that may wait for the writer; more are refused.
const MAX_PENDING_WRITES: usize = 4096;
/// Read operations that may wait for a reader; more are refused.
const MAX_PENDING_READS: usize = 1024;

enum ReaderCommand {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    Stop,
}

pub(super) struct SqliteFile {
    durability: Durability,
    counters: Arc<EventCounters>,
    timer: Arc<DueTimer>,
    writer: mpsc::Sender<WriterCommand>,
    reader: crossbeam_channel::Sender<ReaderCommand>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    timer: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl SqliteFile {
    /// Opens the file, migrates its tables and starts the threads. The timer thread calls
    /// `apply_due` for the queues that are watched.
    pub(super) fn open(options: &SqliteOptions, apply_due: ApplyDue) -> Result<Self> {
        let mut connection = connect(options, false)?;
        migrate(&mut connection)?;
        let (writer, write_commands) = mpsc::channel(MAX_PENDING_WRITES);
        let (reader, read_commands) = crossbeam_channel::bounded(MAX_PENDING_READS);
        let mut threads = Threads::default();
        for number in 1..=options.readers.get() {
            let connection = connect(options, true)?;
            let commands = read_commands.clone();
            let run = move || read_loop(connection, &commands);
            threads.readers.push(spawn(&format!("sqlite-read-{number}"), run)?);
        }
        let counters = Arc::<EventCounters>::default();
        let timer = Arc::<DueTimer>::default();
        let (writer_counters, listener) = (Arc::clone(&counters), Arc::clone(&timer));
        let run = move || write_loop(&connection, &writer_counters, &*listener, write_commands);
        threads.writer = Some(spawn("sqlite-write", run)?);
        // A weak sender: the timer must not keep the writer's channel open.
        let (thread_timer, timer_writer) = (Arc::clone(&timer), writer.downgrade());
        let run = move || thread_timer.run(&timer_writer, apply_due);
        threads.timer = Some(spawn("sqlite-timer", run)?);
        let (durability, threads) = (options.durability, Mutex::new(threads));
        Ok(Self { durability, counters, timer, writer, reader, threads })
    }

    pub(super) const fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn counters(&self) -> EventCounts {
        self.counters.snapshot()
    }

    pub(super) fn timer(&self) -> &DueTimer {
        &self.timer
    }

    /// Runs an atomic operation on the writer, in a transaction shared with concurrent operations,
    /// and returns after the commit.
    ///
    /// If another operation fails the shared transaction, `work` runs a second time. `work` must
    /// not have changed anything when it returns an error that is not the database's.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let command = WriterCommand::Run(PendingWrite::boxed(work, reply));
        self.writer.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded { backend: BACKEND },
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Runs a look-up on a reader.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            if !reply.is_closed() {
                // The send fails if the caller was cancelled meanwhile: its result is not needed.
                drop(reply.send(work(connection)));
            }
        };
        self.reader.try_send(ReaderCommand::Run(Box::new(job))).map_err(|error| match error {
            crossbeam_channel::TrySendError::Full(_) => StoreError::Overloaded { backend: BACKEND },
            crossbeam_channel::TrySendError::Disconnected(_) => closed(),
        })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Stops the threads after the operations that wait for them. The writer stops last: as the
    /// last connection it checkpoints and removes the write-ahead log.
    pub(super) async fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder panics"));
        let (writer, reader) = (self.writer.clone(), self.reader.clone());
        self.timer.stop();
        let stop = move || {
            drop(threads.timer.map(JoinHandle::join));
            for _ in &threads.readers {
                drop(reader.send(ReaderCommand::Stop));
            }
            for thread in threads.readers {
                drop(thread.join());
            }
            if let Some(thread) = threads.writer {
                drop(writer.blocking_send(WriterCommand::Stop));
                drop(thread.join());
            }
        };
        if tokio::task::spawn_blocking(stop).await.is_err() {
            tracing::error!("cannot close the SQLite file in order");
        }
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        self.timer.stop();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(unavailable)
}

fn read_loop(mut connection: Connection, commands: &crossbeam_channel::Receiver<ReaderCommand>) {
    while let Ok(ReaderCommand::Run(job)) = commands.recv() {
        job(&mut connection);
    }
}
