//! Consumers that claim ten messages and delete them, and know whether there are any left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep_until;

use crate::crew::Crew;
use crate::prefill;
use crate::report::Outcome;
use crate::server::Server;
use crate::tally::Tally;
use crate::worker::{Queue, Worker};

/// Messages of a claim.
pub(crate) const CLAIM: u64 = 10;
/// After an answer without messages: none but Zaqar gives one.
const REST: Duration = Duration::from_millis(1);

/// What consumers of one queue share.
struct Stock {
    free: AtomicU64,
    /// As many as may be claimed by requests that are not answered yet.
    on_their_way: u64,
    /// Answers without messages while some were free.
    empty: AtomicU64,
}

impl Stock {
    /// Whether it is not certain that there is a free message.
    fn is_low(&self) -> bool {
        self.free.load(Ordering::Relaxed) <= self.on_their_way
    }
}

/// Fills a queue with so many messages and has so many consumers claim and delete them; answers
/// what that made, and how many claims were answered with nothing while there were free messages.
pub(crate) async fn drain(
    server: &Server,
    messages: u64,
    consumers: usize,
    length: Duration,
    body_bytes: usize,
) -> Result<(Outcome, u64)> {
    let queue = Queue::new("claims", CLAIM)?;
    prefill::fill(server.target(), &queue, messages, body_bytes).await?;
    let on_their_way = CLAIM * u64::try_from(consumers)?;
    let stock = Stock { free: AtomicU64::new(messages), on_their_way, empty: AtomicU64::new(0) };
    let stock = Arc::new(stock);
    let queues = [queue];
    let crew = Crew { target: server.target(), queues: &queues, connections: consumers, length };
    let before = server.usage()?.cpu;
    let (tally, elapsed) = crew.run(|_, worker| consume(worker, Arc::clone(&stock))).await?;
    let server_cpu = Some(server.usage()?.cpu.saturating_sub(before));
    let empty = stock.empty.load(Ordering::Relaxed);
    Ok((Outcome { tally, elapsed, server_cpu }, empty))
}

async fn consume(mut worker: Worker, stock: Arc<Stock>) -> Result<Tally> {
    while worker.has_time() && !stock.is_low() {
        match worker.claim().await? {
            Some(claimed) => {
                stock.free.fetch_sub(claimed.messages(), Ordering::Relaxed);
                worker.delete(&claimed).await?;
            }
            None if stock.is_low() => break,
            None => {
                stock.empty.fetch_add(1, Ordering::Relaxed);
                sleep_until((Instant::now() + REST).into()).await;
            }
        }
    }
    Ok(worker.into_tally())
}
