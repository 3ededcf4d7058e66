//! Workers in a closed loop: each makes its next request as soon as the last is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::client::{Connection, Target};
use crate::tally::{Tally, gather};
use crate::worker::{Claimed, Queue, Worker};

/// Workers on connections of their own, spread over the queues.
#[derive(Clone, Copy)]
pub(crate) struct Crew<'a> {
    pub(crate) target: &'a Target,
    pub(crate) queues: &'a [Arc<Queue>],
    pub(crate) connections: usize,
    /// How long the workers have; they may end earlier.
    pub(crate) length: Duration,
}

impl Crew<'_> {
    /// Gives each worker, and its number, the task; returns what all counted, and how long it took.
    pub(crate) async fn run<T>(
        &self,
        task: impl Fn(usize, Worker) -> T,
    ) -> Result<(Tally, Duration)>
    where
        T: Future<Output = Result<Tally>> + Send + 'static,
    {
        let connections = Connection::open_many(self.target, self.connections).await?;
        run_on(connections, self.queues, self.length, task).await
    }
}

/// Gives each connection a worker, on its share of the queues, as a crew does.
pub(crate) async fn run_on<T>(
    connections: Vec<Connection>,
    queues: &[Arc<Queue>],
    length: Duration,
    task: impl Fn(usize, Worker) -> T,
) -> Result<(Tally, Duration)>
where
    T: Future<Output = Result<Tally>> + Send + 'static,
{
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for (index, connection) in connections.into_iter().enumerate() {
        let worker = Worker::new(connection, &queues[index % queues.len()], start + length);
        workers.spawn(task(index, worker));
    }
    let tally = gather(workers, length).await?;
    Ok((tally, start.elapsed()))
}

/// Posts until the time is up, or `most` times.
pub(crate) async fn post(
    mut worker: Worker,
    body: Bytes,
    messages: u64,
    most: u64,
) -> Result<Tally> {
    let mut left = most;
    while left > 0 && worker.has_time() {
        worker.post(body.clone(), messages).await?;
        left -= 1;
    }
    Ok(worker.into_tally())
}

/// Reads the queue over and over, page by page if `on`, or else its first page.
pub(crate) async fn list(mut worker: Worker, on: bool) -> Result<Tally> {
    let mut page = worker.first_page();
    while worker.has_time() {
        let next = worker.list(page).await?;
        page = if on { next } else { worker.first_page() };
    }
    Ok(worker.into_tally())
}

/// Claims and deletes until the time is up or nothing is free.
pub(crate) async fn drain(mut worker: Worker, single_deletes: bool) -> Result<Tally> {
    while worker.has_time() {
        let Some(claimed) = worker.claim().await? else { break };
        delete(&mut worker, &claimed, single_deletes).await?;
    }
    Ok(worker.into_tally())
}

/// Claims and deletes until the time is up, and waits for messages if need be.
pub(crate) async fn consume(mut worker: Worker, single_deletes: bool) -> Result<Tally> {
    // Consumers that outrun the posters would else spend the server's time on empty claims.
    const REST: Duration = Duration::from_millis(1);
    while worker.has_time() {
        match worker.claim().await? {
            Some(claimed) => delete(&mut worker, &claimed, single_deletes).await?,
            None => sleep_until((Instant::now() + REST).into()).await,
        }
    }
    Ok(worker.into_tally())
}

/// Posts, claims as many, deletes them, and so on: the queue stays as long as it was.
pub(crate) async fn cycle(mut worker: Worker, body: Bytes, messages: u64) -> Result<Tally> {
    while worker.has_time() {
        worker.post(body.clone(), messages).await?;
        if let Some(claimed) = worker.claim().await? {
            worker.delete(&claimed).await?;
        }
    }
    Ok(worker.into_tally())
}

async fn delete(worker: &mut Worker, claimed: &Claimed, singly: bool) -> Result<()> {
    if singly { worker.delete_singly(claimed).await } else { worker.delete(claimed).await }
}
