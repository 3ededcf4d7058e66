//! The contract of a pool in its plainest form: lists that are walked from end to end.

mod claims;
mod groups;
mod maintenance;
mod messages;
mod redrive;
mod watch;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    Result, StoreError,
    domain::{
        ClaimId, ClaimTerms, DeduplicationId, Group, GroupName, Incarnation, Message, MessageId,
        OrderingKey, QueueRef, Sequence, Timestamp,
    },
    pool::EventCounts,
    support::SlidingMinuteCounter,
    support::WatchRegistry,
};

/// A pool in memory that is slow and obviously right: what others are compared with.
#[derive(Clone, Default)]
pub struct ReferencePool(Arc<Mutex<State>>, WatchRegistry);

#[derive(Default)]
struct State {
    closed: bool,
    queues: HashMap<Incarnation, Queue>,
    /// By queue and name.
    groups: BTreeMap<(Incarnation, GroupName), Group>,
    /// What queues retain.
    logs: HashMap<Incarnation, Vec<Message>>,
    dropped: HashSet<Incarnation>,
    counters: EventCounts,
}

#[derive(Default)]
struct Queue {
    posted: i64,
    messages: Vec<Message>,
    claims: Vec<Held>,
    /// The ordering keys that can be claimed from, and the lack of one, in turn.
    turns: Vec<Option<OrderingKey>>,
    /// What comes before its turn.
    preferred: Vec<MessageId>,
    /// What was posted with a deduplication id, and until when that counts.
    seen: HashMap<DeduplicationId, (MessageId, Timestamp)>,
    recent: SlidingMinuteCounter,
    /// From when on the next redriven message may be visible, in milliseconds.
    pace: i64,
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

    /// The messages that may be claimed, side by side in their turn, each side oldest first.
    fn free(&mut self, now: Timestamp) -> Vec<Message> {
        let free = |m: &&Message| m.visible_at <= now && self.holder(m, now).is_none();
        let waits = |m: &Message| m.visible_at > now && m.claim_count > 0;
        let busy = |m: &&Message| self.holder(m, now).is_some() || waits(m);
        let keyed = |m: &Message| m.ordering_key.clone();
        let busy: HashSet<_> = self.unexpired(now).filter(busy).filter_map(keyed).collect();
        let is_open = |m: &&Message| m.ordering_key.as_ref().is_none_or(|key| !busy.contains(key));
        let mut free: Vec<_> = self.unexpired(now).filter(free).filter(is_open).cloned().collect();
        if !self.turns.contains(&None) {
            self.turns.insert(0, None);
        }
        let open: HashSet<_> = free.iter().map(|m| m.ordering_key.clone()).collect();
        // What opens goes to the end; the messages without a key are always open.
        self.turns.retain(|key| key.is_none() || open.contains(key));
        for message in &free {
            if !self.turns.contains(&message.ordering_key) {
                self.turns.push(message.ordering_key.clone());
            }
        }
        free.sort_by_key(|m| {
            let turn = self.turns.iter().position(|key| *key == m.ordering_key);
            (turn, m.id)
        });
        let preferred = |m: &Message| self.preferred.contains(&m.id);
        for pair in free.windows(2).filter(|pair| pair[0].ordering_key == pair[1].ordering_key) {
            assert!(preferred(&pair[0]) || !preferred(&pair[1]), "{pair:?} is out of order");
        }
        // Stable: what is alike stays in its turn.
        free.sort_by_key(|m| !preferred(m));
        free
    }

    /// Sends the sides that messages were taken from to the end.
    fn served(&mut self, taken: &[Message]) {
        for message in taken {
            self.turns.retain(|key| *key != message.ordering_key);
            self.turns.push(message.ordering_key.clone());
        }
    }

    /// The message that was posted with this id, if its window is open.
    fn duplicate(&self, id: &DeduplicationId, now: Timestamp) -> Option<MessageId> {
        self.seen.get(id).filter(|(_, until)| *until > now).map(|(id, _)| *id)
    }

    fn remove(&mut self, ids: &[MessageId]) {
        self.messages.retain(|message| !ids.contains(&message.id));
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

impl State {
    /// Puts a message at the end of a queue, and of its groups.
    fn push(&mut self, to: &QueueRef, mut message: Message, retained: bool) -> MessageId {
        let queue = self.queues.get_mut(&to.incarnation).unwrap();
        queue.posted += 1;
        let sequence = Sequence::new(queue.posted).unwrap();
        message.id = MessageId { incarnation: to.incarnation, sequence };
        queue.messages.push(message.clone());
        if retained {
            self.logs.entry(to.incarnation).or_default().push(message.clone());
        }
        let groups = self.groups.iter().filter(|((of, _), _)| *of == to.incarnation);
        for (_, group) in groups {
            let reading = self.queues.get_mut(&group.as_queue.incarnation).unwrap();
            reading.posted += 1;
            reading.messages.push(message.clone());
        }
        message.id
    }

    /// Forgets a queue or the reading of a group.
    fn drop_queue(&mut self, queue: Incarnation) {
        self.queues.remove(&queue);
        self.logs.remove(&queue);
        self.dropped.insert(queue);
    }
}

impl ReferencePool {
    /// Lets the next claim or pop take these messages, as another pool did, if it may: whose turn it
    /// is depends on when a pool noticed that time has opened a line.
    pub(super) fn prefer(&self, queue: &QueueRef, ids: Vec<MessageId>) -> Result<()> {
        self.with(queue, |queue| queue.preferred = ids)
    }

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
