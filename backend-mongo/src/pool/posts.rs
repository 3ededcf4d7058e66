//! Plain posts: messages that are compared with nothing and wait for no other. They need to know
//! nothing of what the queue holds, so they are committed whatever else happens to it, by any number
//! of nodes at once.
//!
//! Posts that come while others are under way gather, and are stored together: one insertion for the
//! buckets, and one change of the queue's document that gives them their positions and is the
//! commit. Only the latter waits until it is durable, and the former with it, if the same primary did
//! both: a new one may have the one and not the other. Then what it has not is stored again before
//! anybody is told. The buckets are marked with their places a little later, many at a time; until
//! then they are found by the journal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use storage_traits::{
    Result,
    domain::{ClientId, Incarnation, NewMessage, Posted, Timestamp},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Side,
    clerk::{Clerk, Committed},
    slot::{Slot, message_id},
    stores::Stores,
};
use crate::error::{overloaded, unavailable, unexpected};

/// How many posts may wait for one queue.
const MOST_WAITING: usize = 4_096;
/// How many batches of a queue are under way at a time.
const SIDE_BY_SIDE: usize = 1;
/// How many batches may be without places.
const MOST_UNPLACED: usize = 256;

/// Whether messages can be posted without looking at what the queue holds.
pub(super) fn is_plain(messages: &[NewMessage]) -> bool {
    messages.iter().all(|message| {
        message.deduplication.is_none() && message.ordering_key.is_none() && !message.retained
    })
}

/// Messages that a client posts together.
pub(super) struct Post {
    pub(super) slots: Vec<(Slot, Vec<u8>)>,
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
    pub(super) readings: Arc<[i64]>,
}

#[derive(Default)]
pub(super) struct Posts(Mutex<HashMap<i64, Desk>>);

impl Posts {
    pub(super) fn desks(&self) -> MutexGuard<'_, HashMap<i64, Desk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clerk(self: &Arc<Self>, side: &Arc<Side>, stores: &Stores, home: i64) -> Clerk {
        let (posts, side) = (Arc::clone(self), Arc::clone(side));
        Clerk { posts, side, stores: stores.clone(), home }
    }

    /// Gives all buckets their places that have none.
    pub(super) async fn flush(self: &Arc<Self>, side: &Arc<Side>, stores: &Stores) {
        let homes: Vec<i64> = self.desks().keys().copied().collect();
        for home in homes {
            let clerk = self.clerk(side, stores, home);
            let unplaced =
                self.desks().get_mut(&home).map(|desk| std::mem::take(&mut desk.unplaced));
            let unplaced = unplaced.unwrap_or_default();
            if clerk.place(&unplaced).await.is_err() {
                self.desks().entry(home).or_default().unplaced.extend(unplaced);
            }
        }
    }

    /// Stores messages at the end of a queue; `None` if it is unknown.
    pub(super) async fn store(
        self: &Arc<Self>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Option<Vec<Posted>>> {
        if stores.0.is_closed() {
            return Err(unavailable("the pool is closed"));
        }
        if messages.is_empty() {
            return Ok(stores.record(home).await?.map(|_| Vec::new()));
        }
        let count = messages.len();
        let (reply, answer) = oneshot::channel();
        let slots = messages
            .iter()
            .map(|message| (Slot::new(client, message, now), message.body.as_bytes().to_vec()));
        let bytes = messages.iter().map(|message| message.body.as_bytes().len()).sum();
        let post = Post { slots: slots.collect(), bytes, reply };
        {
            let mut desks = self.desks();
            let desk = desks.entry(home).or_default();
            if desk.waiting.len() >= MOST_WAITING || desk.unplaced.len() >= MOST_UNPLACED {
                return Err(overloaded());
            }
            desk.waiting.push(post);
            if desk.under_way < SIDE_BY_SIDE {
                desk.under_way += 1;
                stores.0.spawn(self.clerk(side, stores, home).run());
            }
        }
        let first = match timeout(stores.0.timeout() * 2, answer).await {
            Ok(Ok(first)) => first?,
            Ok(Err(_)) => return Err(unavailable("the post was given up")),
            Err(_) => return Err(unavailable("no answer in time")),
        };
        let Some(first) = first else { return Ok(None) };
        let ids = Incarnation::new(home).ok_or_else(|| unexpected("a queue's number is wrong"))?;
        let sequences = (first..).take(count);
        let posted = sequences
            .map(|sequence| message_id(ids, sequence).map(|id| Posted { id, duplicate: false }));
        posted.collect::<Result<_>>().map(Some)
    }
}
