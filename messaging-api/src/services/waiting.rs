//! Waiting for a queue to have something.

use storage_traits::{
    domain::QueueRef,
    pool::{Watch, WatchFor},
};

use super::{Services, directory::Known};
use crate::{error::ApiError, long_poll::Patience};

/// The watch of a request that waits, and on what.
pub(super) type Watched = Option<(QueueRef, Watch)>;

impl Services {
    /// Waits until it is time to look again at a queue that had nothing; `false` if patience ends
    /// before.
    pub(super) async fn wait_for(
        &self,
        known: Option<&Known>,
        what: WatchFor,
        watched: &mut Watched,
        patience: &Patience,
    ) -> Result<bool, ApiError> {
        if !patience.is_left() {
            return Ok(false);
        }
        let Some(known) = known else {
            return patience.wait_for_queue().await;
        };
        if let Some((queue, watch)) = watched
            && queue == known.queue()
        {
            return patience.wait(watch).await;
        }
        let watch = self.pool.watch(known.queue(), what, self.now()).await?;
        let (_, watch) = watched.insert((known.queue().clone(), watch));
        match what {
            // The watch knows what can be claimed already; what was posted has to be looked for.
            WatchFor::Claimable => patience.wait(watch).await,
            WatchFor::Posts => Ok(true),
        }
    }
}
