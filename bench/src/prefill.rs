//! Fills queues through the API, in batches.

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinSet;

use crate::body;
use crate::client::{Connection, Target};
use crate::worker::Queue;

/// Enough for the service to group its commits.
const CONNECTIONS: u64 = 8;

/// Posts `count` messages of `body_bytes` each to the queue.
pub(crate) async fn fill(
    target: &Target,
    queue: &Queue,
    count: u64,
    body_bytes: usize,
) -> Result<()> {
    if count >= 200_000 {
        eprintln!("filling {} with {count} messages", queue.path());
    }
    let path = format!("{}/messages", queue.path());
    let text = body::message_body(body_bytes);
    let mut posters = JoinSet::new();
    for poster in 0..CONNECTIONS {
        let share = count / CONNECTIONS + u64::from(poster < count % CONNECTIONS);
        let connection = Connection::open(target).await?;
        posters.spawn(post(connection, path.clone(), text.clone(), share));
    }
    while let Some(poster) = posters.join_next().await {
        poster.map_err(|failed| anyhow!("filling a queue failed: {failed}"))??;
    }
    Ok(())
}

/// Creates the queue.
pub(crate) async fn create(target: &Target, queue: &Queue) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    let response = connection.send(Method::PUT, queue.path().parse()?, Bytes::new()).await?;
    ensure!(response.status == 201, "creating a queue returned {}", response.status);
    Ok(())
}

async fn post(mut connection: Connection, path: String, text: String, count: u64) -> Result<()> {
    let batch = body::largest_batch(text.len());
    let full = body::post(&text, batch)?;
    let mut left = usize::try_from(count)?;
    while left > 0 {
        let size = left.min(batch);
        let body = if size == batch { full.clone() } else { body::post(&text, size)? };
        let response = connection.send(Method::POST, path.parse()?, body).await?;
        ensure!(response.status == 201, "filling a queue returned {}", response.status);
        left -= size;
    }
    Ok(())
}
