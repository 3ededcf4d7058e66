//! Plain posts: messages that are compared with nothing and wait for no other. They need to know
//! nothing of what the queue holds, so they are committed whatever else happens to it, by any
//! number of nodes at once.
//!
//! Posts that come while others are under way gather, and are stored together: one insertion for
//! the buckets, and one change of the queue's document that gives them their positions and is the
//! commit. Only the latter waits until it is durable, and the former with it, if the same primary
//! did both: a new one may have the one and not the other. Then what it has not is stored again
//! before anybody is told. The buckets are marked with their places a little later, many at a time;
//! until then they are found by the journal.

use std::sync::Arc;

use storage_traits::{
    Result,
    domain::{ClientId, Incarnation, NewMessage, Posted, Timestamp},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    clerk::Clerk,
    collections::Collections,
    events::EventSink,
    post_queue::{Desks, Post},
    stored_message::{StoredMessage, message_id},
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

#[derive(Default)]
pub(super) struct Posts {
    desks: Arc<Desks>,
}

impl Posts {
    fn clerk(&self, events: &Arc<EventSink>, collections: &Collections, queue_id: i64) -> Clerk {
        let (desks, events) = (Arc::clone(&self.desks), Arc::clone(events));
        Clerk { desks, events, collections: collections.clone(), queue_id }
    }

    /// Gives all buckets their places that have none.
    pub(super) async fn flush(&self, events: &Arc<EventSink>, collections: &Collections) {
        let queue_ids: Vec<i64> = self.desks.lock().keys().copied().collect();
        for queue_id in queue_ids {
            let clerk = self.clerk(events, collections, queue_id);
            let unplaced =
                self.desks.lock().get_mut(&queue_id).map(|desk| std::mem::take(&mut desk.unplaced));
            let unplaced = unplaced.unwrap_or_default();
            if clerk.place(&unplaced).await.is_err() {
                self.desks.lock().entry(queue_id).or_default().unplaced.extend(unplaced);
            }
        }
    }

    /// Stores messages at the end of a queue; `None` if it is unknown.
    pub(super) async fn store(
        &self,
        events: &Arc<EventSink>,
        collections: &Collections,
        queue_id: i64,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Option<Vec<Posted>>> {
        if collections.server.is_closed() {
            return Err(unavailable("the pool is closed"));
        }
        if messages.is_empty() {
            return Ok(collections.read_committed(queue_id).await?.map(|_| Vec::new()));
        }
        let count = messages.len();
        let (reply, answer) = oneshot::channel();
        let stored = messages.iter().map(|message| {
            (StoredMessage::new(client, message, now), message.body.as_bytes().to_vec())
        });
        let bytes = messages.iter().map(|message| message.body.as_bytes().len()).sum();
        let post = Post { messages: stored.collect(), bytes, reply };
        {
            let mut desks = self.desks.lock();
            let desk = desks.entry(queue_id).or_default();
            if desk.waiting.len() >= MOST_WAITING || desk.unplaced.len() >= MOST_UNPLACED {
                return Err(overloaded());
            }
            desk.waiting.push(post);
            if desk.under_way < SIDE_BY_SIDE {
                desk.under_way += 1;
                collections.server.spawn(self.clerk(events, collections, queue_id).run());
            }
        }
        let first = match timeout(collections.server.timeout() * 2, answer).await {
            Ok(Ok(first)) => first?,
            Ok(Err(_)) => return Err(unavailable("the post was given up")),
            Err(_) => return Err(unavailable("no answer in time")),
        };
        let Some(first) = first else { return Ok(None) };
        let ids =
            Incarnation::new(queue_id).ok_or_else(|| unexpected("a queue's number is wrong"))?;
        let sequences = (first..).take(count);
        let posted = sequences
            .map(|sequence| message_id(ids, sequence).map(|id| Posted { id, duplicate: false }));
        posted.collect::<Result<_>>().map(Some)
    }
}
