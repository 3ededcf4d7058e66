//! Lanes: the operations on one queue that a node has to do, one step after the other. What gathers
//! while a step is under way is the next one.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt as _;
use storage_traits::Result;
use tokio::{sync::Notify, time::timeout};

use super::{
    Side,
    apply::Applier,
    operation::{Operation, Waiting, waiting},
    stores::Stores,
    worker::Worker,
};
use crate::error::{overloaded, unavailable};

/// How many operations share a step at the most.
const MOST_TOGETHER: usize = 64;
/// How many operations may wait for one queue.
const MOST_WAITING: usize = 4_096;

/// The lanes of a node.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<i64, Arc<Lane>>>,
    is_closed: AtomicBool,
}

/// What waits for one queue.
#[derive(Default)]
pub(super) struct Lane {
    waiting: Mutex<VecDeque<Box<dyn Waiting>>>,
    pub(super) comes: Notify,
    pub(super) applier: OnceLock<Applier>,
}

impl Lane {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Box<dyn Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next operations that can share a step: those that append do not mix with others, since
    /// what they append is not to be found before they are committed.
    pub(super) fn take(&self) -> Vec<Box<dyn Waiting>> {
        let mut waiting = self.waiting();
        waiting.retain(|operation| !operation.is_given_up());
        let Some(appends) = waiting.front().map(|first| first.appends()) else { return Vec::new() };
        let alike = waiting.iter().take_while(|it| it.appends() == appends);
        let count = alike.take(MOST_TOGETHER).count();
        waiting.drain(..count).collect()
    }

    /// Those that have to go on come first again.
    pub(super) fn put_back(&self, operations: Vec<Box<dyn Waiting>>) {
        let mut waiting = self.waiting();
        operations.into_iter().rev().for_each(|operation| waiting.push_front(operation));
    }
}

impl Lanes {
    fn lanes(&self) -> MutexGuard<'_, HashMap<i64, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether nothing more is taken.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Does an operation when its turn comes.
    pub(super) async fn run<O: Operation>(
        self: &Arc<Self>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        operation: O,
    ) -> Result<O::Answer> {
        if self.is_closed() || stores.0.is_closed() {
            return Err(unavailable("the pool is closed"));
        }
        let (operation, answer) = waiting(operation);
        if !self.push(side, stores, home, operation) {
            return Err(overloaded());
        }
        // A step ends in that time, but it may have to be made again.
        match timeout(stores.0.timeout() * 2, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("the pool is closed")),
            Err(_) => Err(unavailable("no answer in time")),
        }
    }

    fn push(
        self: &Arc<Self>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        operation: Box<dyn Waiting>,
    ) -> bool {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(&home) {
            let mut waiting = lane.waiting();
            if waiting.len() >= MOST_WAITING {
                return false;
            }
            waiting.push_back(operation);
            drop(waiting);
            lane.comes.notify_one();
            return true;
        }
        let lane = Arc::<Lane>::default();
        lane.waiting().push_back(operation);
        lanes.insert(home, Arc::clone(&lane));
        let worker = Worker::new(self, side, stores, home, &lane);
        let lanes = Arc::clone(self);
        stores.0.spawn(async move {
            // Whoever waits is told, and the next one begins anew.
            if AssertUnwindSafe(worker.run()).catch_unwind().await.is_err() {
                tracing::error!(queue = home, "a step panicked");
                lanes.lanes().remove(&home);
            }
        });
        true
    }

    /// Forgets a lane in which nothing waits; `false` if something has come.
    pub(super) fn close_lane(&self, home: i64, lane: &Lane) -> bool {
        let mut lanes = self.lanes();
        let is_idle = lane.waiting().is_empty();
        if is_idle {
            lanes.remove(&home);
        }
        is_idle
    }

    /// Waits until all that was committed here is carried out.
    pub(super) async fn flush(&self, home: i64) {
        let lane = self.lanes().get(&home).cloned();
        if let Some(applier) = lane.as_ref().and_then(|lane| lane.applier.get()) {
            applier.until(0).await;
        }
    }

    /// Waits until all lanes have come to rest.
    pub(super) async fn flush_all(&self) {
        let homes: Vec<i64> = self.lanes().keys().copied().collect();
        for home in homes {
            self.flush(home).await;
        }
    }
}
