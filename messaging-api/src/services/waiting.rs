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
        if let Some(known) = known {
            return self.wait_for_reading(known.queue(), what, watched, patience).await;
        }
        // Whoever watches the queue's last life as well is told that it is over.
        *watched = None;
        patience.wait_for_queue().await
    }

    /// The same for a queue, or a group's reading of one, that exists.
    pub(super) async fn wait_for_reading(
        &self,
        reading: &QueueRef,
        what: WatchFor,
        watched: &mut Watched,
        patience: &Patience,
    ) -> Result<bool, ApiError> {
        if !patience.is_left() {
            return Ok(false);
        }
        if let Some((queue, watch)) = watched
            && queue == reading
        {
            return patience.wait(watch).await;
        }
        let watch = self.pool.watch(reading, what, self.now()).await?;
        let (_, watch) = watched.insert((reading.clone(), watch));
        match what {
            // The watch knows what can be claimed already; what was posted has to be looked for.
            WatchFor::Claimable => patience.wait(watch).await,
            WatchFor::Posts => Ok(true),
        }
    }
}
