//! Runs the operations on each queue of a node, one unit of work after the other. Operations that
//! arrive while one is in progress share the next.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use storage_traits::Result;
use tokio::time::timeout;

use super::{
    bodies::Reply,
    collections::Collections,
    events::EventSink,
    operation::{Operation, PendingOperation, pending},
    operation_queue::OperationQueue,
    worker::Worker,
};
use crate::error::{overloaded, unavailable};

/// How long the executor of an idle queue keeps its cache.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The executors of a node, by queue.
#[derive(Default)]
pub(super) struct Executors {
    queues: Mutex<HashMap<i64, Arc<OperationQueue>>>,
    is_closed: AtomicBool,
}

/// The task that runs the operations on one queue.
struct QueueExecutor {
    executors: Arc<Executors>,
    queue_id: i64,
    operations: Arc<OperationQueue>,
    worker: Worker,
}

impl QueueExecutor {
    /// Runs operations until none has arrived for [`IDLE_TIMEOUT`].
    async fn run(mut self) {
        loop {
            let operations = self.operations.take();
            if !operations.is_empty() {
                self.worker.run_operations(operations).await;
                continue;
            }
            if timeout(IDLE_TIMEOUT, self.operations.wakeup.notified()).await.is_ok() {
                continue;
            }
            self.worker.truncate_journal().await;
            if self.executors.remove_idle(self.queue_id, &self.operations) {
                return;
            }
        }
    }
}

impl Executors {
    fn queues(&self) -> MutexGuard<'_, HashMap<i64, Arc<OperationQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects all further operations.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Runs an operation after those that wait already, and returns its reply.
    pub(super) async fn run<O: Operation>(
        self: &Arc<Self>,
        events: &Arc<EventSink>,
        collections: &Collections,
        queue_id: i64,
        operation: O,
    ) -> Result<<O::Reply as Reply>::Complete> {
        if self.is_closed.load(Ordering::Acquire) || collections.server.is_closed() {
            return Err(unavailable("the pool is closed"));
        }
        let (operation, reply) = pending(operation);
        if !self.push(events, collections, queue_id, operation) {
            return Err(overloaded());
        }
        // A unit of work takes that long at most, but it may have to be repeated once.
        match timeout(collections.server.timeout() * 2, reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(unavailable("the pool is closed")),
            Err(_) => Err(unavailable("no response in time")),
        }
    }

    fn push(
        self: &Arc<Self>,
        events: &Arc<EventSink>,
        collections: &Collections,
        queue_id: i64,
        operation: Box<dyn PendingOperation>,
    ) -> bool {
        let mut queues = self.queues();
        if let Some(operations) = queues.get(&queue_id) {
            return operations.push(operation);
        }
        let operations = Arc::<OperationQueue>::default();
        operations.push(operation);
        queues.insert(queue_id, Arc::clone(&operations));
        let worker = Worker::new(events, collections, queue_id, &operations);
        let executors = Arc::clone(self);
        let executor =
            QueueExecutor { executors: Arc::clone(&executors), queue_id, operations, worker };
        collections.server.spawn(async move {
            // The callers get an error, and the next operation starts a new executor.
            if AssertUnwindSafe(executor.run()).catch_unwind().await.is_err() {
                tracing::error!(queue.id = queue_id, "an operation panicked");
                executors.queues().remove(&queue_id);
            }
        });
        true
    }

    /// Removes an executor whose queue has no waiting operations; returns `false` if it has some.
    fn remove_idle(&self, queue_id: i64, operations: &OperationQueue) -> bool {
        let mut queues = self.queues();
        let is_idle = operations.is_empty();
        if is_idle {
            queues.remove(&queue_id);
        }
        is_idle
    }

    /// Waits until all that this node committed to a queue is applied.
    pub(super) async fn flush(&self, queue_id: i64) {
        let operations = self.queues().get(&queue_id).cloned();
        if let Some(applier) = operations.as_ref().and_then(|it| it.started_applier()) {
            applier.wait_until_pending_at_most(0).await;
        }
    }

    /// Waits until all that this node committed is applied.
    pub(super) async fn flush_all(&self) {
        let queue_ids: Vec<i64> = self.queues().keys().copied().collect();
        for queue_id in queue_ids {
            self.flush(queue_id).await;
        }
    }
}
