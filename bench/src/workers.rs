//! Workers in a closed loop: each sends its next request as soon as it has the last response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::client::{Connection, Target};
use crate::stats::{Stats, gather};
use crate::worker::{Claimed, Queue, Worker};

/// Workers with a connection each, spread over the queues.
#[derive(Clone, Copy)]
pub(crate) struct Workers<'a> {
    pub(crate) target: &'a Target,
    pub(crate) queues: &'a [Arc<Queue>],
    pub(crate) connections: usize,
    /// How long the workers run. They may end earlier.
    pub(crate) length: Duration,
}

impl Workers<'_> {
    /// Runs the task with each worker and its number. Returns the sum of their statistics and the
    /// time taken.
    pub(crate) async fn run<T>(
        &self,
        task: impl Fn(usize, Worker) -> T,
    ) -> Result<(Stats, Duration)>
    where
        T: Future<Output = Result<Stats>> + Send + 'static,
    {
        let connections = Connection::open_many(self.target, self.connections).await?;
        run_on(connections, self.queues, self.length, task).await
    }
}

/// Runs the task with a worker on each connection, like [`Workers::run`].
pub(crate) async fn run_on<T>(
    connections: Vec<Connection>,
    queues: &[Arc<Queue>],
    length: Duration,
    task: impl Fn(usize, Worker) -> T,
) -> Result<(Stats, Duration)>
where
    T: Future<Output = Result<Stats>> + Send + 'static,
{
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for (index, connection) in connections.into_iter().enumerate() {
        let worker = Worker::new(connection, &queues[index % queues.len()], start + length);
        workers.spawn(task(index, worker));
    }
    let stats = gather(workers, length).await?;
    Ok((stats, start.elapsed()))
}

/// Posts until the time is up, or `max_posts` times.
pub(crate) async fn post(
    mut worker: Worker,
    body: Bytes,
    messages: u64,
    max_posts: u64,
) -> Result<Stats> {
    let mut left = max_posts;
    while left > 0 && worker.has_time() {
        worker.post(body.clone(), messages).await?;
        left -= 1;
    }
    Ok(worker.into_stats())
}

/// Lists the queue again and again: all pages if `all_pages`, otherwise the first one.
pub(crate) async fn list(mut worker: Worker, all_pages: bool) -> Result<Stats> {
    let mut page = worker.first_page();
    while worker.has_time() {
        let next = worker.list(page).await?;
        page = if all_pages { next } else { worker.first_page() };
    }
    Ok(worker.into_stats())
}

/// Claims and deletes until the time is up or nothing is free.
pub(crate) async fn drain(mut worker: Worker, single_deletes: bool) -> Result<Stats> {
    while worker.has_time() {
        let Some(claimed) = worker.claim().await? else { break };
        delete(&mut worker, &claimed, single_deletes).await?;
    }
    Ok(worker.into_stats())
}

/// Claims and deletes until the time is up. Pauses after a claim without messages.
pub(crate) async fn consume(mut worker: Worker, single_deletes: bool) -> Result<Stats> {
    // Without a pause, consumers that are faster than the posters load the server with empty
    // claims.
    const PAUSE: Duration = Duration::from_millis(1);
    while worker.has_time() {
        match worker.claim().await? {
            Some(claimed) => delete(&mut worker, &claimed, single_deletes).await?,
            None => sleep_until((Instant::now() + PAUSE).into()).await,
        }
    }
    Ok(worker.into_stats())
}

/// Posts, claims and deletes the same number of messages, so that the queue keeps its length.
pub(crate) async fn cycle(mut worker: Worker, body: Bytes, messages: u64) -> Result<Stats> {
    while worker.has_time() {
        worker.post(body.clone(), messages).await?;
        if let Some(claimed) = worker.claim().await? {
            worker.delete(&claimed).await?;
        }
    }
    Ok(worker.into_stats())
}

async fn delete(worker: &mut Worker, claimed: &Claimed, singly: bool) -> Result<()> {
    if singly { worker.delete_singly(claimed).await } else { worker.delete(claimed).await }
}
