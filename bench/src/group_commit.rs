//! `group-commit`: the bare ceiling of posting to one SQLite file, without HTTP. One writer takes
//! whatever is queued, stores it in one transaction with one statement, and answers after the
//! commit.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::args::{Place, RunArgs};
use crate::baseline::{Baseline, Run};
use crate::body;
use crate::database::{self, Message};
use crate::report::{Outcome, rows_table, write_json};
use crate::sync::SyncArgs;
use crate::tally::{Op, Tally, gather};

/// Most posts in a transaction.
const MOST: usize = 256;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let sync = args.sync.cost(args.place.fresh_dir()?.path()).await?;
    println!("{}\n", sync.line());
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        let fresh = args.place.fresh_dir()?;
        let (baseline, dir) = (Baseline::GroupCommit, fresh.path().to_owned());
        let (length, body_bytes) = (args.run.length(), args.run.body.body_bytes);
        let run = Run { baseline, dir, connections, length, body_bytes, round };
        rows.extend(run.in_child(args.sync).await?);
    }
    println!("{}", rows_table(&rows));
    write_json(&args.run.output, "group-commit", json!({ "sync": sync, "rows": rows }))
}

/// One run of `posters` posters on a new database in `dir`.
pub(crate) async fn measure(
    dir: &Path,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let connection = database::open(&dir.join("group-commit.db"))?;
    let (sender, posts) = mpsc::channel(MOST);
    let writer = thread::spawn(move || write(connection, posts));
    let body = Bytes::from(body::message_body(body_bytes));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(sender.clone(), body.clone(), start, start + length));
    }
    drop(sender);
    let tally = gather(workers, length).await;
    let elapsed = start.elapsed();
    // Its own account of a failure comes first: the posters only know that no answer came.
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    Ok(Outcome { tally: tally?, elapsed, server_cpu: None })
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
) -> Result<Tally> {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let posted_ms = i64::try_from((begun - start).as_millis())?;
        let (done, stored) = oneshot::channel();
        let post = Post { body: body.clone(), posted_ms, done };
        writer.send(post).await.map_err(|_| anyhow!("the writer has ended"))?;
        stored.await.context("the writer gave no answer")?;
        tally.record(Op::Post, 1, begun.elapsed());
    }
    Ok(tally)
}

fn write(mut connection: Connection, mut posts: mpsc::Receiver<Post>) -> Result<()> {
    let statements: Vec<String> = (0..=MOST).map(database::insert_sql).collect();
    let mut batch = Vec::with_capacity(MOST);
    while posts.blocking_recv_many(&mut batch, MOST) > 0 {
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
            // A poster that has gone does not want to know.
            let _ = post.done.send(());
        }
    }
    Ok(())
}
