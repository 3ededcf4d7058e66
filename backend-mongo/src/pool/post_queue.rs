//! What [`Posts`](super::posts::Posts) and its clerks share: the posts that wait, by queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use storage_traits::Result;
use tokio::sync::oneshot;

use super::{queue_document::JournalEntry, stored_message::StoredMessage};

/// Messages that a client posts together.
pub(super) struct Post {
    pub(super) messages: Vec<(StoredMessage, Vec<u8>)>,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// The first position; `None` if the queue is unknown.
pub(super) type Answer = Result<Option<i64>>;

/// What a node knows of a queue that it posts to.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) waiting: Vec<Post>,
    pub(super) under_way: usize,
    pub(super) shape: Option<Shape>,
    /// Batches whose buckets are to be marked with their places.
    pub(super) unplaced: Vec<Committed>,
    /// Those whose buckets are, for good, and that can go from the journal.
    pub(super) done: Vec<i64>,
    /// Whether somebody sees to that.
    pub(super) is_tended: bool,
}

/// Who gets what is posted.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) number: i64,
    pub(super) group_ids: Arc<[i64]>,
}

/// A batch that has its positions.
pub(super) struct Committed {
    pub(super) entry: JournalEntry,
    /// Whether one command was sent for it. If there were more, one that is late may still come,
    /// and must find the entry in the journal; it goes when it is stale.
    pub(super) once: bool,
}

/// The desks of all queues.
#[derive(Default)]
pub(super) struct Desks(Mutex<HashMap<i64, Desk>>);

impl Desks {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<i64, Desk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
