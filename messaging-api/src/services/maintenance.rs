//! What a node does beside answering: sweep the pool, follow the catalog.

use std::time::Duration;

use storage_traits::pool::EventCounts;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{context::Services, error::Result};

/// How often other nodes' changes are read.
const CHANGES_INTERVAL: Duration = Duration::from_millis(500);
/// How often the pool is looked at for work that is due.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Services {
    /// Answers if the stores do.
    pub(crate) async fn check(&self) -> Result<()> {
        self.catalog.check().await?;
        Ok(self.pool.check().await?)
    }

    /// What the pool did on the side.
    pub(crate) fn counters(&self) -> EventCounts {
        self.pool.counters()
    }

    /// Lets go of the stores.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.catalog.close().await;
    }

    /// Forgets what other nodes change, until it is stopped.
    pub(crate) async fn follow_changes(self, stop: CancellationToken) {
        let mut position = None;
        let mut ticks = ticks(CHANGES_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.queues.apply_changes(position).await {
                Ok(next) => position = Some(next),
                Err(error) => tracing::warn!(%error, "the catalog's changes cannot be read"),
            }
        }
    }

    /// Removes what is over, until it is stopped.
    pub(crate) async fn sweep(self, stop: CancellationToken) {
        let mut ticks = ticks(SWEEP_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            loop {
                match self.pool.sweep(self.now()).await {
                    Ok(swept) if swept.more && !stop.is_cancelled() => {}
                    Ok(_) => break,
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "the message pool cannot be swept");
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
