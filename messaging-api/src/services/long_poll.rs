//! Calls that wait until a queue has messages.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use storage_traits::{
    domain::QueueRef,
    pool::{Watch, WatchFor},
};

use super::{
    context::Services,
    error::{Error, Result},
    queue_cache::CachedQueue,
};

/// The longest that a call may wait, in seconds.
pub(crate) const MAX_WAIT: i64 = 30;
/// How often a call that waits for a queue to be created looks it up.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What a transport does for a call while the call waits.
#[async_trait(?Send)]
pub(crate) trait Suspend {
    /// Gives up the call's share of the node's capacity.
    fn suspend(&self);

    /// Takes a share again. Returns `false` if the node has none left.
    fn resume(&self) -> bool;

    /// Returns whether the wait must end now, because the client is gone or the node stops.
    fn is_interrupted(&self) -> bool;

    /// Completes when [`is_interrupted`](Self::is_interrupted) becomes true.
    async fn interrupted(&self);
}

/// How long a call may wait. A suspended call uses no capacity and no thread.
pub(crate) struct WaitBudget(Option<(Instant, Rc<dyn Suspend>)>);

impl WaitBudget {
    /// Returns the budget of a call that must not wait.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Returns the budget of a call that may wait for this long.
    pub(crate) fn new(wait: Duration, host: Rc<dyn Suspend>) -> Self {
        Self(Some((Instant::now() + wait, host)))
    }

    /// Returns the time that is left, and the transport; `None` if the call must return.
    fn left(&self) -> Option<(Duration, &dyn Suspend)> {
        let (deadline, host) = self.0.as_ref()?;
        let left = deadline.checked_duration_since(Instant::now())?;
        (!left.is_zero() && !host.is_interrupted()).then_some((left, &**host))
    }

    /// Returns whether the call may still wait.
    pub(super) fn has_time(&self) -> bool {
        self.left().is_some()
    }

    /// Waits for an event of the watch. Returns `false` if the budget ends before.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the node has no capacity to resume the call.
    async fn wait(&self, watch: &mut Watch) -> Result<bool> {
        self.suspended(async |left| watch.wait(left).await).await
    }

    /// Waits until a missing queue should be looked up again. Returns `false` if the budget ends
    /// before.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[expect(clippy::disallowed_methods, reason = "a missing queue has no events to wait for")]
    async fn wait_for_queue(&self) -> Result<bool> {
        self.suspended(async |left| {
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
            left > POLL_INTERVAL
        })
        .await
    }

    /// Awaits `wait` while the call is suspended. An interruption ends the wait, with `false`, so
    /// that a consumer that is gone claims nothing. No store call is in progress meanwhile, so none
    /// is cancelled.
    async fn suspended(&self, wait: impl AsyncFnOnce(Duration) -> bool) -> Result<bool> {
        let Some((left, host)) = self.left() else { return Ok(false) };
        host.suspend();
        let happened = tokio::select! {
            biased;
            () = host.interrupted() => false,
            happened = wait(left) => happened && !host.is_interrupted(),
        };
        if host.resume() { Ok(happened) } else { Err(Error::Overloaded) }
    }
}

/// The watch that a waiting call holds, and the queue or group that it observes.
pub(super) type Watched = Option<(QueueRef, Watch)>;

impl Services {
    /// Waits until a queue that had no messages should be read again. Returns `false` if the budget
    /// ends before.
    pub(super) async fn wait_for(
        &self,
        cached: Option<&CachedQueue>,
        what: WatchFor,
        watched: &mut Watched,
        budget: &WaitBudget,
    ) -> Result<bool> {
        if !budget.has_time() {
            return Ok(false);
        }
        if let Some(cached) = cached {
            return self.wait_for_group(cached.queue(), what, watched, budget).await;
        }
        // A watch of the deleted incarnation of the queue has reported its last event.
        *watched = None;
        budget.wait_for_queue().await
    }

    /// Waits like [`wait_for`](Self::wait_for), on an existing queue or group.
    pub(super) async fn wait_for_group(
        &self,
        queue: &QueueRef,
        what: WatchFor,
        watched: &mut Watched,
        budget: &WaitBudget,
    ) -> Result<bool> {
        if !budget.has_time() {
            return Ok(false);
        }
        if let Some((known, watch)) = watched
            && known == queue
        {
            return budget.wait(watch).await;
        }
        let watch = self.pool.watch(queue, what, self.now()).await?;
        let (_, watch) = watched.insert((queue.clone(), watch));
        match what {
            // The watch already reports claimable messages; posted ones must be listed first.
            WatchFor::Claimable => budget.wait(watch).await,
            WatchFor::Posts => Ok(true),
        }
    }
}
