//! The operations of one queue that wait on this node.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::Notify;

use super::{apply::JournalApplier, collections::Collections, operation::PendingOperation};

/// How many operations share a unit of work at most.
const MAX_BATCH: usize = 64;
/// How many operations may wait for one queue.
const MAX_WAITING: usize = 4_096;

#[derive(Default)]
pub(super) struct OperationQueue {
    waiting: Mutex<VecDeque<Box<dyn PendingOperation>>>,
    /// Signals that an operation was added.
    pub(super) wakeup: Notify,
    applier: OnceLock<JournalApplier>,
}

impl OperationQueue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Box<dyn PendingOperation>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an operation; returns `false` if too many wait.
    pub(super) fn push(&self, operation: Box<dyn PendingOperation>) -> bool {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return false;
        }
        waiting.push_back(operation);
        drop(waiting);
        self.wakeup.notify_one();
        true
    }

    /// Removes the next operations that can share a unit of work. Operations that append are not
    /// mixed with others: what they append cannot be found before it is committed.
    pub(super) fn take(&self) -> Vec<Box<dyn PendingOperation>> {
        let mut waiting = self.waiting();
        waiting.retain(|operation| !operation.is_abandoned());
        let Some(appends) = waiting.front().map(|first| first.appends()) else { return Vec::new() };
        let alike = waiting.iter().take_while(|it| it.appends() == appends);
        let count = alike.take(MAX_BATCH).count();
        waiting.drain(..count).collect()
    }

    /// Puts operations that have to run again before the others.
    pub(super) fn put_back(&self, operations: Vec<Box<dyn PendingOperation>>) {
        let mut waiting = self.waiting();
        operations.into_iter().rev().for_each(|operation| waiting.push_front(operation));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Returns the applier of the queue's journal, and starts it if there is none.
    pub(super) fn applier(&self, collections: &Collections, queue_id: i64) -> &JournalApplier {
        self.applier.get_or_init(|| JournalApplier::start(collections, queue_id))
    }

    /// Returns the applier of the queue's journal, if one was started.
    pub(super) fn started_applier(&self) -> Option<&JournalApplier> {
        self.applier.get()
    }
}
