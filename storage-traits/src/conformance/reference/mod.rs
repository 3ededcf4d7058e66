//! The contract of a pool in its plainest form: lists that are walked from end to end.

mod claims;
mod maintenance;
mod messages;
mod wake;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    Result, StoreError,
    domain::{
        ClaimId, ClaimTerms, DeduplicationId, Incarnation, Message, MessageId, QueueRef, Sequence,
        Timestamp,
    },
    pool::{Bells, PoolCounters},
};

/// A pool in memory that is slow and obviously right: what others are compared with.
#[derive(Clone, Default)]
pub struct ReferencePool(Arc<Mutex<State>>, Bells);

#[derive(Default)]
struct State {
    closed: bool,
    queues: HashMap<Incarnation, Queue>,
    dropped: HashSet<Incarnation>,
    counters: PoolCounters,
}

#[derive(Default)]
struct Queue {
    posted: i64,
    messages: Vec<Message>,
    claims: Vec<Held>,
    /// What was posted with a deduplication id, and until when that counts.
    seen: HashMap<DeduplicationId, (MessageId, Timestamp)>,
}

struct Held {
    id: ClaimId,
    renewed_at: Timestamp,
    ttl: Duration,
}

impl Queue {
    /// The claim, if it is alive.
    fn claim(&mut self, id: ClaimId, now: Timestamp) -> Option<&mut Held> {
        self.claims.iter_mut().find(|held| held.id == id && held.renewed_at.plus(held.ttl) > now)
    }

    /// The live claim that holds a message.
    fn holder(&self, message: &Message, now: Timestamp) -> Option<ClaimId> {
        let alive = |held: &&Held| held.renewed_at.plus(held.ttl) > now;
        self.claims.iter().filter(alive).map(|held| held.id).find(|id| message.claim == Some(*id))
    }

    fn unexpired(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.expires_at > now)
    }

    fn find(&self, id: MessageId, now: Timestamp) -> Option<&Message> {
        self.unexpired(now).find(|message| message.id == id)
    }

    /// The messages that may be claimed, oldest first.
    fn free(&self, now: Timestamp) -> Vec<Message> {
        let free = |m: &&Message| m.visible_at <= now && self.holder(m, now).is_none();
        self.unexpired(now).filter(free).cloned().collect()
    }

    /// The message that was posted with this id, if its window is open.
    fn duplicate(&self, id: &DeduplicationId, now: Timestamp) -> Option<MessageId> {
        self.seen.get(id).filter(|(_, until)| *until > now).map(|(id, _)| *id)
    }

    fn remove(&mut self, ids: &[MessageId]) {
        self.messages.retain(|message| !ids.contains(&message.id));
    }

    fn push(&mut self, queue: &QueueRef, mut message: Message) -> MessageId {
        self.posted += 1;
        let sequence = Sequence::new(self.posted).unwrap();
        message.id = MessageId { incarnation: queue.incarnation, sequence };
        self.messages.push(message);
        self.messages.last().unwrap().id
    }

    fn held_by(&self, id: ClaimId) -> Vec<Message> {
        self.messages.iter().filter(|message| message.claim == Some(id)).cloned().collect()
    }

    /// Lets the messages of a claim live on with it.
    fn extend(&mut self, id: ClaimId, terms: ClaimTerms, now: Timestamp) {
        for message in self.messages.iter_mut().filter(|message| message.claim == Some(id)) {
            if message.expires_at < now.plus(terms.ttl) {
                message.ttl = terms.ttl + terms.grace;
                message.expires_at = now.plus(message.ttl);
            }
        }
    }
}

impl ReferencePool {
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.0.lock().unwrap();
        if state.closed {
            return Err(StoreError::Unavailable { backend: "reference", source: "closed".into() });
        }
        Ok(state)
    }

    /// What `f` says of the queue; what it says of an empty one if the pool does not know it.
    fn with<T>(&self, queue: &QueueRef, f: impl FnOnce(&mut Queue) -> T) -> Result<T> {
        let mut state = self.state()?;
        Ok(f(state.queues.get_mut(&queue.incarnation).unwrap_or(&mut Queue::default())))
    }
}
