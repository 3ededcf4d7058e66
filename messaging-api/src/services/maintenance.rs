//! Background work of a node: sweeps the pool, and follows the catalog's changes.

use std::time::Duration;

use storage_traits::pool::EventCounts;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{context::Services, error::Result};

/// How often the changes of the catalog are read.
const CHANGES_INTERVAL: Duration = Duration::from_millis(500);
/// How often the pool is swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Services {
    /// Checks that both stores can be reached.
    pub(crate) async fn check(&self) -> Result<()> {
        self.catalog.check().await?;
        Ok(self.pool.check().await?)
    }

    /// Returns the counts of messages that the pool expired and dead-lettered.
    pub(crate) fn counters(&self) -> EventCounts {
        self.pool.counters()
    }

    /// Closes the stores.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.catalog.close().await;
    }

    /// Invalidates the cached queues that other nodes change, until `stop` is cancelled.
    pub(crate) async fn follow_changes(self, stop: CancellationToken) {
        let mut position = None;
        let mut ticks = ticks(CHANGES_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.queues.apply_changes(position).await {
                Ok(next) => position = Some(next),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the changes of the catalog; will retry");
                }
            }
        }
    }

    /// Removes expired messages and data of deleted queues, until `stop` is cancelled.
    pub(crate) async fn sweep(self, stop: CancellationToken) {
        let mut ticks = ticks(SWEEP_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            loop {
                match self.pool.sweep(self.now()).await {
                    Ok(swept) if swept.more && !stop.is_cancelled() => {}
                    Ok(_) => break,
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "cannot sweep the message pool; will retry");
                        break;
                    }
                }
            }
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
