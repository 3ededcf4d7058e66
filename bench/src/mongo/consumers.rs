//! Consumers that claim and delete messages, and count empty claims while messages are free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep_until;

use crate::prefill;
use crate::report::Outcome;
use crate::server::Server;
use crate::stats::Stats;
use crate::worker::{Queue, Worker};
use crate::workers::Workers;

/// Messages of a claim.
pub(crate) const CLAIM: u64 = 10;
/// Pause after an empty claim while messages are free, which only Zaqar returns.
const PAUSE: Duration = Duration::from_millis(1);

/// State that the consumers of one queue share.
struct Stock {
    free: AtomicU64,
    /// Maximum number of messages that requests in flight can claim.
    in_flight: u64,
    /// Empty claims while messages were free.
    empty: AtomicU64,
}

impl Stock {
    /// Returns whether requests in flight may claim all free messages.
    fn is_low(&self) -> bool {
        self.free.load(Ordering::Relaxed) <= self.in_flight
    }
}

/// Fills a queue with messages and runs consumers that claim and delete them. Also returns how many
/// claims were empty although messages were free.
pub(crate) async fn drain(
    server: &Server,
    messages: u64,
    consumers: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<(Outcome, u64)> {
    let queue = Queue::new("claims", CLAIM)?;
    prefill::fill(server.target(), &queue, messages, body_bytes).await?;
    let in_flight = CLAIM * u64::try_from(consumers)?;
    let stock = Stock { free: AtomicU64::new(messages), in_flight, empty: AtomicU64::new(0) };
    let stock = Arc::new(stock);
    let queues = [queue];
    let workers =
        Workers { target: server.target(), queues: &queues, connections: consumers, length };
    let before = server.usage()?.cpu;
    let (stats, elapsed) = workers.run(|_, worker| consume(worker, Arc::clone(&stock))).await?;
    let server_cpu = Some(server.usage()?.cpu.saturating_sub(before));
    let empty = stock.empty.load(Ordering::Relaxed);
    Ok((Outcome { stats, elapsed, server_cpu }, empty))
}

async fn consume(mut worker: Worker, stock: Arc<Stock>) -> Result<Stats> {
    while worker.has_time() && !stock.is_low() {
        match worker.claim().await? {
            Some(claimed) => {
                stock.free.fetch_sub(claimed.messages(), Ordering::Relaxed);
                worker.delete(&claimed).await?;
            }
            None if stock.is_low() => break,
            None => {
                stock.empty.fetch_add(1, Ordering::Relaxed);
                sleep_until((Instant::now() + PAUSE).into()).await;
            }
        }
    }
    Ok(worker.into_stats())
}
