//! Requests that wait for something to happen.

use std::{
    future::pending,
    rc::Rc,
    time::{Duration, Instant},
};

use storage_traits::pool::Watch;

use crate::{
    connections::Peer,
    error::ApiError,
    extract::Query,
    front::{InFlight, Place},
};

/// The longest that a request may wait, in seconds.
pub(crate) const MAX_WAIT: i64 = 30;
/// How often to look whether a queue that is missing has come to be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a request may still wait. While it does it holds no place among the requests that are
/// worked on, and no thread; a node that stops ends it.
pub(crate) struct Patience {
    deadline: Option<Instant>,
    place: Rc<Place>,
    peer: Option<Peer>,
}

impl Patience {
    /// Reads the parameter `wait`: seconds, 0 to 30.
    ///
    /// # Errors
    /// [`ApiError::Parameter`] if it is no integer, [`ApiError::Invalid`] if it is out of bounds.
    pub(crate) fn of(
        query: &Query,
        place: Rc<Place>,
        peer: Option<Peer>,
    ) -> Result<Self, ApiError> {
        let deadline = match query.integer("wait")? {
            None | Some(0) => None,
            Some(seconds @ 1..=MAX_WAIT) => {
                Some(Instant::now() + Duration::from_secs(seconds.unsigned_abs()))
            }
            Some(_) => {
                return Err(ApiError::Invalid(format!("\"wait\" must be 0 to {MAX_WAIT} seconds")));
            }
        };
        Ok(Self { deadline, place, peer })
    }

    /// How long to wait; `None` if the answer is due.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline?.checked_duration_since(Instant::now())?;
        (!left.is_zero() && !self.in_flight().is_stopping()).then_some(left)
    }

    /// Whether there is any left.
    pub(crate) fn is_left(&self) -> bool {
        self.left().is_some()
    }

    fn in_flight(&self) -> &InFlight {
        self.place.in_flight()
    }

    /// Waits until the queue has something; `false` if patience ends before.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] if there is no place to go on working.
    pub(crate) async fn wait(&self, watch: &mut Watch) -> Result<bool, ApiError> {
        self.aside(async |left| watch.wait(left).await).await
    }

    /// Waits for a queue that does not exist; `false` if patience ends before it is time to look.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[expect(clippy::disallowed_methods, reason = "no event tells of queues that are not there")]
    pub(crate) async fn wait_for_queue(&self) -> Result<bool, ApiError> {
        self.aside(async |left| {
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
            left > LOOK_EVERY
        })
        .await
    }

    /// Waits without a place among the requests that are worked on. Ends early, with `false`, when
    /// the node stops or the client closes its connection: a consumer that is gone must claim
    /// nothing. No store call is under way meanwhile, so none is torn down.
    async fn aside(&self, wait: impl AsyncFnOnce(Duration) -> bool) -> Result<bool, ApiError> {
        let Some(left) = self.left() else { return Ok(false) };
        self.place.wait();
        let happened = tokio::select! {
            biased;
            () = self.in_flight().stopping().cancelled() => false,
            () = self.peer_closed() => false,
            happened = wait(left) => happened && !self.peer.as_ref().is_some_and(Peer::is_closed),
        };
        if self.place.work() { Ok(happened) } else { Err(ApiError::Overloaded) }
    }

    async fn peer_closed(&self) {
        match &self.peer {
            Some(peer) => peer.closed().await,
            None => pending().await,
        }
    }
}
