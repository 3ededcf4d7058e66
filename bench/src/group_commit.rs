//! `group-commit`: the upper limit of posts to one SQLite file, without HTTP. One writer takes all
//! queued posts, stores them in one transaction with one statement, and reports them as stored
//! after the commit.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::args::{Baseline, BaselineArgs, Paths, RunArgs};
use crate::baseline::run_in_child;
use crate::body;
use crate::database::{self, Message};
use crate::report::{Outcome, rows_table, write_json};
use crate::stats::{Op, Stats, gather};
use crate::sync::SyncArgs;

/// Maximum number of posts in a transaction.
const MAX_BATCH: usize = 256;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let sync = args.sync.cost(args.paths.fresh_dir()?.path()).await?;
    println!("{}\n", sync.line());
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        let fresh = args.paths.fresh_dir()?;
        let (baseline, dir) = (Baseline::GroupCommit, fresh.path().to_owned());
        let (length, body_bytes) = (args.run.length(), args.run.body.body_bytes);
        let run = BaselineArgs { baseline, dir, connections, length, body_bytes, round };
        rows.extend(run_in_child(&run, args.sync).await?);
    }
    println!("{}", rows_table(&rows));
    write_json(&args.run.output, "group-commit", json!({ "sync": sync, "rows": rows }))
}

/// Runs `posters` posters on a new database in `dir`.
pub(crate) async fn measure(
    dir: &Path,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let connection = database::open(&dir.join("group-commit.db"))?;
    let (sender, posts) = mpsc::channel(MAX_BATCH);
    let writer = thread::spawn(move || write(connection, posts));
    let body = Bytes::from(body::message_body(body_bytes));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(sender.clone(), body.clone(), start, start + length));
    }
    drop(sender);
    let stats = gather(workers, length).await;
    let elapsed = start.elapsed();
    // The writer's error comes first: the posters only know that the writer has ended.
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    Ok(Outcome { stats: stats?, elapsed, server_cpu: None })
}

struct Post {
    body: Bytes,
    posted_ms: i64,
    done: oneshot::Sender<()>,
}

async fn post(
    writer: mpsc::Sender<Post>,
    body: Bytes,
    start: Instant,
    until: Instant,
) -> Result<Stats> {
    let mut stats = Stats::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let posted_ms = i64::try_from((begun - start).as_millis())?;
        let (done, stored) = oneshot::channel();
        let post = Post { body: body.clone(), posted_ms, done };
        writer.send(post).await.map_err(|_| anyhow!("the writer has ended"))?;
        stored.await.context("the writer dropped a post")?;
        stats.record(Op::Post, 1, begun.elapsed());
    }
    Ok(stats)
}

fn write(mut connection: Connection, mut posts: mpsc::Receiver<Post>) -> Result<()> {
    let statements: Vec<String> = (0..=MAX_BATCH).map(database::insert_sql).collect();
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while posts.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statement = transaction.prepare_cached(&statements[batch.len()])?;
        let messages = batch.iter().map(|post: &Post| Message {
            queue: "orders",
            ttl: 3600,
            posted_ms: post.posted_ms,
            body: &post.body,
        });
        database::insert(&mut statement, messages)?;
        drop(statement);
        transaction.commit()?;
        for post in batch.drain(..) {
            // The poster may have been cancelled.
            let _ = post.done.send(());
        }
    }
    Ok(())
}
