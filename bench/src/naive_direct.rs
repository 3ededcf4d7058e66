//! `naive --direct`: the database operations of `naive` without HTTP. Tasks of this process commit
//! one transaction per post on the same pool.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use tokio::task::JoinSet;

use crate::body;
use crate::database::{self, Message};
use crate::pool::Pool;
use crate::report::Outcome;
use crate::stats::{Op, Stats, gather};

/// Runs `posters` posters on a new database in `dir`.
pub(crate) async fn measure(
    dir: &Path,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let pool = Pool::open(&dir.join("naive.db"))?;
    let body = Bytes::from(body::message_body(body_bytes));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(Arc::clone(&pool), body.clone(), start, start + length));
    }
    let stats = gather(workers, length).await?;
    Ok(Outcome { stats, elapsed: start.elapsed(), server_cpu: None })
}

async fn post(pool: Arc<Pool>, body: Bytes, start: Instant, until: Instant) -> Result<Stats> {
    let mut stats = Stats::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let posted_ms = i64::try_from((begun - start).as_millis())?;
        let body = body.clone();
        Arc::clone(&pool).run(move |connection| insert(connection, &body, posted_ms)).await?;
        stats.record(Op::Post, 1, begun.elapsed());
    }
    Ok(stats)
}

fn insert(connection: &mut Connection, body: &[u8], posted_ms: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let message = Message { queue: "orders", ttl: 3600, posted_ms, body };
    let mut statement = transaction.prepare_cached(&database::insert_sql(1))?;
    database::insert(&mut statement, std::iter::once(message))?;
    drop(statement);
    transaction.commit()
}
