//! The requests in flight on this node, and the permits that bound them.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The requests under way on this node.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Requests that have come and are not answered.
    open: AtomicUsize,
    /// Those of them that are worked on, rather than still being received.
    active: AtomicUsize,
    /// Bytes of bodies that have come in part.
    receiving: AtomicUsize,
    stopping: CancellationToken,
    ended: Notify,
}

impl InFlight {
    /// How many requests are under way.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Is cancelled when the node is about to stop.
    pub(crate) const fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Says that the node is about to stop, and waits until nothing is under way.
    pub(crate) async fn drain(&self) {
        self.stopping.cancel();
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// A request's place among those under way; given back when it is dropped, whatever became of the
/// request.
#[derive(Debug)]
pub(crate) struct RequestPermit {
    in_flight: Arc<InFlight>,
    max: usize,
    active: Cell<bool>,
    received: Cell<usize>,
}

impl RequestPermit {
    pub(crate) fn new(in_flight: Arc<InFlight>, max: usize) -> Self {
        in_flight.open.fetch_add(1, Ordering::AcqRel);
        Self { in_flight, max, active: Cell::new(false), received: Cell::new(0) }
    }

    /// The requests among which it is.
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Begins to work on the request; `false` if too many are worked on already.
    pub(crate) fn acquire(&self) -> bool {
        self.in_flight.receiving.fetch_sub(self.received.take(), Ordering::AcqRel);
        let before = self.in_flight.active.fetch_add(1, Ordering::AcqRel);
        self.active.set(true);
        before < self.max
    }

    /// Waits, for more of the request or for something to happen, which keeps nobody else from being
    /// served.
    pub(crate) fn suspend(&self) {
        if self.active.take() {
            self.in_flight.active.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes room for a piece of a body that comes in pieces; `false` if all such bodies together
    /// have more than `max` bytes already.
    pub(crate) fn reserve_body_bytes(&self, bytes: usize, max: usize) -> bool {
        self.received.set(self.received.get() + bytes);
        self.in_flight.receiving.fetch_add(bytes, Ordering::AcqRel) + bytes <= max
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.suspend();
        self.in_flight.receiving.fetch_sub(self.received.take(), Ordering::AcqRel);
        self.in_flight.open.fetch_sub(1, Ordering::AcqRel);
        if self.in_flight.is_stopping() {
            self.in_flight.ended.notify_waiters();
        }
    }
}
