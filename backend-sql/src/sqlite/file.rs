//! The file: its connections, its threads, its tables.

use std::{
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use storage_traits::{
    Result, StoreError,
    pool::{Durability, EventCounts},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    SqliteOptions,
    alarm::{self, Alarm},
    error::{BACKEND, store_error, unavailable, unexpected},
    writer::{Command, Counters, Tx, Waiting, write_loop},
};

/// Steps that may wait for the writer.
const WRITES_WAITING: usize = 4096;
/// Look-ups that may wait for a reader.
const READS_WAITING: usize = 1024;
/// How long to wait for another process that writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Says in the file's header whose it is.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ChPR");
/// The steps from one version of the tables to the next (`PRAGMA user_version`).
const MIGRATIONS: [&str; 5] = [
    include_str!("../../migrations/sqlite/0001_first.sql"),
    include_str!("../../migrations/sqlite/0002_deduplication.sql"),
    include_str!("../../migrations/sqlite/0003_ordering.sql"),
    include_str!("../../migrations/sqlite/0004_groups.sql"),
    include_str!("../../migrations/sqlite/0005_retention.sql"),
];

enum ReadCommand {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    Stop,
}

pub(super) struct SqliteFile {
    durability: Durability,
    counters: Arc<Counters>,
    alarm: Arc<Alarm>,
    writer: mpsc::Sender<Command>,
    reader: crossbeam_channel::Sender<ReadCommand>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    alarm: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl SqliteFile {
    pub(super) fn open(options: &SqliteOptions) -> Result<Self> {
        let mut writing = connect(options, false)?;
        migrate(&mut writing)?;
        let (writer, commands) = mpsc::channel(WRITES_WAITING);
        let (reader, reads) = crossbeam_channel::bounded(READS_WAITING);
        let mut threads = Threads::default();
        for number in 1..=options.readers.get() {
            let reading = connect(options, true)?;
            let reads = reads.clone();
            let run = move || read_loop(reading, &reads);
            threads.readers.push(spawn(&format!("sqlite-read-{number}"), run)?);
        }
        let counters = Arc::<Counters>::default();
        let counting = Arc::clone(&counters);
        let alarm = Arc::<Alarm>::default();
        let ringing = Arc::clone(&alarm);
        let run = move || write_loop(&writing, &counting, &ringing, commands);
        threads.writer = Some(spawn("sqlite-write", run)?);
        threads.alarm = Some(spawn("sqlite-alarm", alarm::thread(&alarm, &writer))?);
        let (durability, threads) = (options.durability, Mutex::new(threads));
        Ok(Self { durability, counters, alarm, writer, reader, threads })
    }

    pub(super) const fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn counters(&self) -> EventCounts {
        self.counters.snapshot()
    }

    /// Who is told what happens.
    pub(super) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Runs one atomic step on the writer, in a transaction shared with the steps beside it, and
    /// answers after the commit. `work` may run twice (if a neighbour's failure voids the shared
    /// transaction), and must not have changed anything when it answers an error of its own.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.writer.try_send(Command::Run(Waiting::boxed(work, reply))).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded { backend: BACKEND },
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Runs a look-up on a reader.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            if !reply.is_closed() {
                // The asker may be gone by now; then nobody misses the answer.
                drop(reply.send(work(connection)));
            }
        };
        self.reader.try_send(ReadCommand::Run(Box::new(job))).map_err(|e| match e {
            crossbeam_channel::TrySendError::Full(_) => StoreError::Overloaded { backend: BACKEND },
            crossbeam_channel::TrySendError::Disconnected(_) => closed(),
        })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Ends the threads after what they have to do, the writer last: it leaves a file without a
    /// log beside it.
    pub(super) async fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder panics"));
        let (writer, reader) = (self.writer.clone(), self.reader.clone());
        self.alarm.stop();
        let stop = move || {
            drop(threads.alarm.map(JoinHandle::join));
            for _ in &threads.readers {
                drop(reader.send(ReadCommand::Stop));
            }
            for thread in threads.readers {
                drop(thread.join());
            }
            if let Some(thread) = threads.writer {
                drop(writer.blocking_send(Command::Stop));
                drop(thread.join());
            }
        };
        if tokio::task::spawn_blocking(stop).await.is_err() {
            tracing::error!("the SQLite file was not closed in order");
        }
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        self.alarm.stop();
    }
}

fn closed() -> StoreError {
    unavailable("the file is closed")
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(unavailable)
}

fn read_loop(mut connection: Connection, reads: &crossbeam_channel::Receiver<ReadCommand>) {
    while let Ok(ReadCommand::Run(job)) = reads.recv() {
        job(&mut connection);
    }
}

fn connect(options: &SqliteOptions, reader: bool) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags).map_err(store_error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(store_error)?;
    // Before anything is changed: the file must be ours, or new.
    version(&connection)?;
    prepare(&connection, options, reader).map_err(store_error)?;
    Ok(connection)
}

fn prepare(connection: &Connection, options: &SqliteOptions, reader: bool) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    // A plan does not depend on the values of parameters, so that a statement is parsed once.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    let synchronous = if options.durability >= Durability::Fsync { "full" } else { "normal" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", if reader { "-4096" } else { "-8192" })?;
    connection.pragma_update(None, "query_only", reader)
}

/// The version of the tables; 0 if there are none yet.
fn version(connection: &Connection) -> Result<i32> {
    let number =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let owner = number("application_id").map_err(store_error)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(store_error)?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(unexpected("the file belongs to another program"));
    }
    number("user_version").map_err(store_error)
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(store_error)?;
    let done = usize::try_from(version(&tx)?).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(unexpected("the file was made by a newer version of this program"));
    };
    for step in missing {
        tx.execute_batch(step).map_err(store_error)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(store_error)?;
    tx.pragma_update(None, "user_version", MIGRATIONS.len()).map_err(store_error)?;
    tx.commit().map_err(store_error)
}
