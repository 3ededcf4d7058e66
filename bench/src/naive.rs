//! `naive`: posting as a first version of a service would do it. A transaction per post, on a pool
//! of four connections, without HTTP.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

use crate::args::{Place, RunArgs};
use crate::body;
use crate::database::{self, Message};
use crate::report::{Label, Outcome, rows_table, write_json};
use crate::tally::{Op, Tally, gather};

const CONNECTIONS: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        let (program, scenario) = ("naive".to_owned(), "post".to_owned());
        let label = Label { program, scenario, connections, round };
        let dir = args.place.fresh_dir()?;
        let (length, body_bytes) = (args.run.length(), args.run.body.body_bytes);
        let outcome = measure(dir.path(), connections, length, body_bytes).await?;
        rows.extend(outcome.rows(&label));
    }
    println!("{}", rows_table(&rows));
    write_json(&args.run.output, "naive", json!({ "rows": rows }))
}

/// One run of `posters` posters on a new database in `dir`.
pub(crate) async fn measure(
    dir: &Path,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let pool = Arc::new(Pool::open(&dir.join("naive.db"))?);
    let body = Bytes::from(body::message_body(body_bytes));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(Arc::clone(&pool), body.clone(), start, start + length));
    }
    let tally = gather(workers, length).await?;
    Ok(Outcome { tally, elapsed: start.elapsed(), server_cpu: None })
}

async fn post(pool: Arc<Pool>, body: Bytes, start: Instant, until: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let posted_ms = i64::try_from((begun - start).as_millis())?;
        pool.insert(body.clone(), posted_ms).await?;
        tally.record(Op::Post, 1, begun.elapsed());
    }
    Ok(tally)
}

struct Pool {
    free: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Pool {
    fn open(path: &Path) -> Result<Self> {
        let free: rusqlite::Result<_> = (0..CONNECTIONS).map(|_| database::open(path)).collect();
        Ok(Self { free: Mutex::new(free?), permits: Semaphore::new(CONNECTIONS) })
    }

    async fn insert(&self, body: Bytes, posted_ms: i64) -> Result<()> {
        let _permit = self.permits.acquire().await?;
        let mut connection =
            self.lock()?.pop().ok_or_else(|| anyhow!("a permit came without a connection"))?;
        let (connection, done) = spawn_blocking(move || {
            let done = insert(&mut connection, &body, posted_ms);
            (connection, done)
        })
        .await?;
        self.lock()?.push(connection);
        Ok(done?)
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, Vec<Connection>>> {
        self.free.lock().map_err(|_| anyhow!("a poster panicked"))
    }
}

fn insert(connection: &mut Connection, body: &[u8], posted_ms: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let message = Message { queue: "orders", ttl: 3600, posted_ms, body };
    let mut statement = transaction.prepare_cached(&database::insert_sql(1))?;
    database::insert(&mut statement, std::iter::once(message))?;
    drop(statement);
    transaction.commit()
}
