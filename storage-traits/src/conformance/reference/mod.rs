//! Reference model of the message pool contract: lists in memory that are scanned from end to end.

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

/// Pool in memory, simple and slow, with which other pools are compared.
#[derive(Clone, Default)]
pub struct ReferencePool(Arc<Mutex<State>>, WatchRegistry);

#[derive(Default)]
struct State {
    closed: bool,
    queues: HashMap<Incarnation, Queue>,
    /// Groups by the incarnation of their queue and their name.
    groups: BTreeMap<(Incarnation, GroupName), Group>,
    /// Retention logs: the messages that each queue retains.
    retained: HashMap<Incarnation, Vec<Message>>,
    dropped: HashSet<Incarnation>,
    counters: EventCounts,
}

/// Delivery state of a queue or a group.
#[derive(Default)]
struct Queue {
    /// Sequence of the last message.
    last_sequence: i64,
    messages: Vec<Message>,
    claims: Vec<ClaimState>,
    /// Round-robin order of the available ordering keys; `None` stands for messages without a key.
    rotation: Vec<Option<OrderingKey>>,
    /// Messages to claim first, out of the rotation.
    preferred: Vec<MessageId>,
    /// The message of each deduplication id, and the end of its window.
    deduplication: HashMap<DeduplicationId, (MessageId, Timestamp)>,
    completed: SlidingMinuteCounter,
    /// First time that redrives with a rate left unused, in milliseconds.
    redrive_next_free: i64,
}

struct ClaimState {
    id: ClaimId,
    renewed_at: Timestamp,
    ttl: Duration,
}

impl Queue {
    /// Returns a claim that has not expired.
    fn claim(&mut self, id: ClaimId, now: Timestamp) -> Option<&mut ClaimState> {
        self.claims.iter_mut().find(|held| held.id == id && held.renewed_at.plus(held.ttl) > now)
    }

    /// Returns the claim that holds a message and has not expired.
    fn holder(&self, message: &Message, now: Timestamp) -> Option<ClaimId> {
        let alive = |held: &&ClaimState| held.renewed_at.plus(held.ttl) > now;
        self.claims.iter().filter(alive).map(|held| held.id).find(|id| message.claim == Some(*id))
    }

    fn unexpired(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.expires_at > now)
    }

    fn find(&self, id: MessageId, now: Timestamp) -> Option<&Message> {
        self.unexpired(now).find(|message| message.id == id)
    }

    /// Returns the messages that can be claimed: by key in the order of the rotation, oldest first
    /// within each key.
    fn claimable(&mut self, now: Timestamp) -> Vec<Message> {
        let ready = |m: &&Message| m.visible_at <= now && self.holder(m, now).is_none();
        let waits_for_retry = |m: &Message| m.visible_at > now && m.claim_count > 0;
        let blocks = |m: &&Message| self.holder(m, now).is_some() || waits_for_retry(m);
        let keyed = |m: &Message| m.ordering_key.clone();
        let blocked: HashSet<_> = self.unexpired(now).filter(blocks).filter_map(keyed).collect();
        let is_available =
            |m: &&Message| m.ordering_key.as_ref().is_none_or(|key| !blocked.contains(key));
        let mut claimable: Vec<_> =
            self.unexpired(now).filter(ready).filter(is_available).cloned().collect();
        if !self.rotation.contains(&None) {
            self.rotation.insert(0, None);
        }
        let available: HashSet<_> = claimable.iter().map(|m| m.ordering_key.clone()).collect();
        // A key that becomes available goes to the end. Messages without a key are never blocked.
        self.rotation.retain(|key| key.is_none() || available.contains(key));
        for message in &claimable {
            if !self.rotation.contains(&message.ordering_key) {
                self.rotation.push(message.ordering_key.clone());
            }
        }
        claimable.sort_by_key(|m| {
            let position = self.rotation.iter().position(|key| *key == m.ordering_key);
            (position, m.id)
        });
        let preferred = |m: &Message| self.preferred.contains(&m.id);
        for pair in claimable.windows(2).filter(|pair| pair[0].ordering_key == pair[1].ordering_key)
        {
            assert!(preferred(&pair[0]) || !preferred(&pair[1]), "{pair:?} is out of order");
        }
        // A stable sort, which keeps the rotation among the others.
        claimable.sort_by_key(|m| !preferred(m));
        claimable
    }

    /// Moves the keys of messages that were served to the end of the rotation.
    fn rotate_to_back(&mut self, served: &[Message]) {
        for message in served {
            self.rotation.retain(|key| *key != message.ordering_key);
            self.rotation.push(message.ordering_key.clone());
        }
    }

    /// Returns the message with a deduplication id whose window has not ended.
    fn duplicate(&self, id: &DeduplicationId, now: Timestamp) -> Option<MessageId> {
        self.deduplication.get(id).filter(|(_, until)| *until > now).map(|(id, _)| *id)
    }

    fn remove(&mut self, ids: &[MessageId]) {
        self.messages.retain(|message| !ids.contains(&message.id));
    }

    fn held_by(&self, id: ClaimId) -> Vec<Message> {
        self.messages.iter().filter(|message| message.claim == Some(id)).cloned().collect()
    }

    /// Extends the messages of a claim that would expire before it.
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
    /// Appends a message to a queue and to its groups.
    fn push(&mut self, to: &QueueRef, mut message: Message, retained: bool) -> MessageId {
        let queue = self.queues.get_mut(&to.incarnation).unwrap();
        queue.last_sequence += 1;
        let sequence = Sequence::new(queue.last_sequence).unwrap();
        message.id = MessageId { incarnation: to.incarnation, sequence };
        queue.messages.push(message.clone());
        if retained {
            self.retained.entry(to.incarnation).or_default().push(message.clone());
        }
        let groups = self.groups.iter().filter(|((of, _), _)| *of == to.incarnation);
        for (_, group) in groups {
            let group = self.queues.get_mut(&group.as_queue.incarnation).unwrap();
            group.last_sequence += 1;
            group.messages.push(message.clone());
        }
        message.id
    }

    /// Removes a queue or the delivery state of a group.
    fn drop_queue(&mut self, queue: Incarnation) {
        self.queues.remove(&queue);
        self.retained.remove(&queue);
        self.dropped.insert(queue);
    }
}

impl ReferencePool {
    /// Makes the next claim or pop select these messages first, as another pool did, if they are
    /// claimable: the rotation depends on when a pool noticed that a key became available.
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

    /// Calls `f` on the queue, or on an empty one if the pool does not know it.
    fn with<T>(&self, queue: &QueueRef, f: impl FnOnce(&mut Queue) -> T) -> Result<T> {
        let mut state = self.state()?;
        Ok(f(state.queues.get_mut(&queue.incarnation).unwrap_or(&mut Queue::default())))
    }
}
