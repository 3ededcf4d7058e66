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

/// The requests that this node is serving.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Requests that are received in part or in full and not answered yet.
    open: AtomicUsize,
    /// Those of them that are being processed, rather than received or suspended.
    active: AtomicUsize,
    /// Bytes of bodies that are received in part.
    receiving: AtomicUsize,
    stopping: CancellationToken,
    ended: Notify,
}

impl InFlight {
    /// Returns the number of requests in flight.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns whether the node is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns the token that is cancelled when the node begins to stop.
    pub(crate) const fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Marks the node as stopping, and waits until no request is in flight.
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

/// A request's share of the node's capacity. Dropping it releases the share.
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

    /// Returns the counters that the permit belongs to.
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Counts the request as being processed. Returns `false` if the limit is exceeded.
    pub(crate) fn acquire(&self) -> bool {
        self.in_flight.receiving.fetch_sub(self.received.take(), Ordering::AcqRel);
        let before = self.in_flight.active.fetch_add(1, Ordering::AcqRel);
        self.active.set(true);
        before < self.max
    }

    /// Stops counting the request as being processed, while it waits for its body or for messages.
    pub(crate) fn suspend(&self) {
        if self.active.take() {
            self.in_flight.active.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Reserves memory for a part of a body. Returns `false` if all bodies that are being received
    /// exceed `max` bytes together.
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
