//! The driver without the service: plain documents with the same write concern as the service's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocumentBuf, doc, rawdoc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::body;
use crate::report::Outcome;
use crate::stats::{Op, Stats, gather};

/// Maximum number of documents in a batch.
const MAX_BATCH: usize = 1_000;
/// Maximum number of connections to a member, the same as the service's.
const MAX_CONNECTIONS: u32 = 64;

/// A way to use the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bare {
    /// One writer inserts all queued documents in one batch, without waiting for more.
    InsertMany,
    /// Each poster inserts its own documents, one by one.
    InsertOne,
    /// Each consumer marks one free document at a time. The value is the number of documents.
    FindAndUpdate(u64),
}

/// A document to insert, and the channel that reports it as stored.
type Post = (RawDocumentBuf, oneshot::Sender<()>);

impl Bare {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::InsertMany => "insert-many",
            Self::InsertOne => "insert-one",
            Self::FindAndUpdate(_) => "find-and-update",
        }
    }

    /// Runs `tasks` concurrent tasks on an empty set.
    pub(crate) async fn run(
        self,
        uri: &str,
        tasks: usize,
        length: Duration,
        body_bytes: usize,
    ) -> Result<Outcome> {
        let client = connect(uri).await?;
        let messages = client.database("bare").collection("messages");
        let outcome = match self {
            Self::InsertMany => insert_many(&messages, tasks, length, body_bytes).await,
            Self::InsertOne => insert_one(&messages, tasks, length, body_bytes).await,
            Self::FindAndUpdate(count) => {
                fill(&messages, count, body_bytes).await?;
                find_and_update(&messages, tasks, length).await
            }
        };
        drop(messages);
        client.shutdown().await;
        outcome
    }
}

async fn connect(uri: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    options.write_concern = Some(majority);
    options.max_pool_size = Some(MAX_CONNECTIONS);
    Ok(Client::with_options(options)?)
}

fn message(body_bytes: usize) -> RawDocumentBuf {
    rawdoc! { "body": body::message_body(body_bytes) }
}

async fn insert_many(
    messages: &Collection<RawDocumentBuf>,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let (sender, posts) = mpsc::channel(MAX_BATCH);
    let writer = tokio::spawn(write(messages.clone(), posts));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(sender.clone(), message(body_bytes), start + length));
    }
    drop(sender);
    let stats = gather(workers, length).await;
    let elapsed = start.elapsed();
    // The writer's error comes first: the posters only know that the writer has ended.
    writer.await.context("the writer panicked")??;
    Ok(Outcome { stats: stats?, elapsed, server_cpu: None })
}

async fn write(
    messages: Collection<RawDocumentBuf>,
    mut posts: mpsc::Receiver<Post>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while posts.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let (documents, done): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        messages.insert_many(documents).ordered(false).await?;
        for done in done {
            // The poster may have been cancelled.
            let _ = done.send(());
        }
    }
    Ok(())
}

async fn post(
    writer: mpsc::Sender<Post>,
    message: RawDocumentBuf,
    until: Instant,
) -> Result<Stats> {
    let mut stats = Stats::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let (done, stored) = oneshot::channel();
        let sent = writer.send((message.clone(), done)).await;
        sent.map_err(|_| anyhow!("the writer has ended"))?;
        stored.await.context("the writer dropped a post")?;
        stats.record(Op::Post, 1, begun.elapsed());
    }
    Ok(stats)
}

async fn insert_one(
    messages: &Collection<RawDocumentBuf>,
    posters: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        let (messages, message) = (messages.clone(), message(body_bytes));
        workers.spawn(async move {
            let mut stats = Stats::default();
            while start.elapsed() < length {
                let begun = Instant::now();
                messages.insert_one(&message).await?;
                stats.record(Op::Post, 1, begun.elapsed());
            }
            Ok(stats)
        });
    }
    let stats = gather(workers, length).await?;
    Ok(Outcome { stats, elapsed: start.elapsed(), server_cpu: None })
}

/// Creates the index on free documents, and the documents.
async fn fill(messages: &Collection<RawDocumentBuf>, count: u64, body_bytes: usize) -> Result<()> {
    let index = IndexModel::builder().keys(doc! { "free": 1, "_id": 1 }).build();
    messages.create_index(index).await?;
    let mut message = message(body_bytes);
    message.append(cstr!("free"), true);
    let mut left = usize::try_from(count)?;
    while left > 0 {
        let batch = left.min(MAX_BATCH);
        messages.insert_many(vec![message.clone(); batch]).await?;
        left -= batch;
    }
    Ok(())
}

async fn find_and_update(
    messages: &Collection<RawDocumentBuf>,
    consumers: usize,
    length: Duration,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..consumers {
        let messages = messages.clone();
        workers.spawn(async move {
            let mut stats = Stats::default();
            while start.elapsed() < length {
                let begun = Instant::now();
                let claim = doc! { "$set": { "free": false } };
                let oldest = doc! { "_id": 1 };
                let claim = messages.find_one_and_update(doc! { "free": true }, claim).sort(oldest);
                if claim.await?.is_none() {
                    break;
                }
                stats.record(Op::Claim, 1, begun.elapsed());
            }
            Ok(stats)
        });
    }
    let stats = gather(workers, length).await?;
    Ok(Outcome { stats, elapsed: start.elapsed(), server_cpu: None })
}
