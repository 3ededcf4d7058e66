//! What the driver makes of MongoDB without the service: plain documents, acknowledged as the
//! service's are.

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
use crate::tally::{Op, Tally, gather};

/// Most documents in a batch of the lane.
const MOST: usize = 1_000;
/// How many connections to a member there may be, as many as the service opens.
const CONNECTIONS: u32 = 64;

/// A way to use the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bare {
    /// One lane inserts what the posters have brought meanwhile, and never waits for more.
    InsertMany,
    /// Each poster inserts its own documents, one by one.
    InsertOne,
    /// Each consumer marks one free document, again and again, of as many as there are at first.
    FindAndUpdate(u64),
}

/// A document on its way, and who waits for it.
type Post = (RawDocumentBuf, oneshot::Sender<()>);

impl Bare {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::InsertMany => "insert-many",
            Self::InsertOne => "insert-one",
            Self::FindAndUpdate(_) => "find-and-update",
        }
    }

    /// Runs so many tasks on an empty set.
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
    options.max_pool_size = Some(CONNECTIONS);
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
    let (sender, posts) = mpsc::channel(MOST);
    let lane = tokio::spawn(lane(messages.clone(), posts));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..posters {
        workers.spawn(post(sender.clone(), message(body_bytes), start + length));
    }
    drop(sender);
    let tally = gather(workers, length).await;
    let elapsed = start.elapsed();
    // Its own account of a failure comes first: the posters only know that no answer came.
    lane.await.context("the lane panicked")??;
    Ok(Outcome { tally: tally?, elapsed, server_cpu: None })
}

async fn lane(messages: Collection<RawDocumentBuf>, mut posts: mpsc::Receiver<Post>) -> Result<()> {
    let mut batch = Vec::with_capacity(MOST);
    while posts.recv_many(&mut batch, MOST).await > 0 {
        let (documents, done): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        messages.insert_many(documents).ordered(false).await?;
        for done in done {
            // A poster that has gone does not want to know.
            let _ = done.send(());
        }
    }
    Ok(())
}

async fn post(lane: mpsc::Sender<Post>, message: RawDocumentBuf, until: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let begun = Instant::now();
        let (done, stored) = oneshot::channel();
        let sent = lane.send((message.clone(), done)).await;
        sent.map_err(|_| anyhow!("the lane has ended"))?;
        stored.await.context("the lane gave no answer")?;
        tally.record(Op::Post, 1, begun.elapsed());
    }
    Ok(tally)
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
            let mut tally = Tally::default();
            while start.elapsed() < length {
                let begun = Instant::now();
                messages.insert_one(&message).await?;
                tally.record(Op::Post, 1, begun.elapsed());
            }
            Ok(tally)
        });
    }
    let tally = gather(workers, length).await?;
    Ok(Outcome { tally, elapsed: start.elapsed(), server_cpu: None })
}

/// Makes the index by which free documents are found, and the documents.
async fn fill(messages: &Collection<RawDocumentBuf>, count: u64, body_bytes: usize) -> Result<()> {
    let index = IndexModel::builder().keys(doc! { "free": 1, "_id": 1 }).build();
    messages.create_index(index).await?;
    let mut message = message(body_bytes);
    message.append(cstr!("free"), true);
    let mut left = usize::try_from(count)?;
    while left > 0 {
        let batch = left.min(MOST);
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
            let mut tally = Tally::default();
            while start.elapsed() < length {
                let begun = Instant::now();
                let claim = doc! { "$set": { "free": false } };
                let oldest = doc! { "_id": 1 };
                let claim = messages.find_one_and_update(doc! { "free": true }, claim).sort(oldest);
                if claim.await?.is_none() {
                    break;
                }
                tally.record(Op::Claim, 1, begun.elapsed());
            }
            Ok(tally)
        });
    }
    let tally = gather(workers, length).await?;
    Ok(Outcome { tally, elapsed: start.elapsed(), server_cpu: None })
}
