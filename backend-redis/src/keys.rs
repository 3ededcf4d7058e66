//! Names of the keys and channels of a pool.
//!
//! All keys of a queue begin with the pool's prefix, a hash tag and the queue's incarnation, as in
//! `chapar:{7}:1234`. The hash tag is the last eight bits of the incarnation, its *shard*. A group
//! gets an incarnation with the shard of its queue, so all that one function touches lies in one
//! hash slot, and a Cluster spreads queues over 256 slots. No key contains the name of a queue.

use storage_traits::{Result, domain::Incarnation};

use crate::{error::unexpected, shared_constants::shared_constants};

/// Part of the keys that decides their hash slot.
pub(crate) type Shard = u8;

/// Number of shards.
pub(crate) const SHARDS: usize = 256;

// What follows the key of a queue's or group's state in the names of its other keys.
shared_constants! {
    /// Streams of a queue, `:messages1` and `:messages2`: each message once, under its sequence.
    /// The first has the messages that were visible when they were posted, have no ordering key and
    /// belong to the queue alone; the second has all others.
    KEY_MESSAGES: &str = ":messages";
    KEY_MESSAGES_1: &str = ":messages1";
    KEY_MESSAGES_2: &str = ":messages2";
    /// Sorted sets of a queue, one for each stream: the first sequence of each run of messages that
    /// expire in order, scored by when the first of them expires.
    KEY_EXPIRY: &str = ":expiry";
    KEY_EXPIRY_1: &str = ":expiry1";
    KEY_EXPIRY_2: &str = ":expiry2";
    /// Hash of a queue: how many of the queue, its groups and its retention log have a message, for
    /// messages that more than one of them has.
    KEY_REFERENCES: &str = ":references";
    /// Hash of a queue: deduplication ids and transfer ids, with a sequence and the end of the
    /// window.
    KEY_DEDUPLICATION: &str = ":deduplication";
    /// Hash of a queue: groups by name, with their creation time, key and settings.
    KEY_GROUPS: &str = ":groups";
    /// Sorted set of a queue: names of its groups, in lexical order.
    KEY_GROUP_NAMES: &str = ":group_names";
    /// Sorted set: ready messages without an ordering key, except the fresh ones.
    KEY_READY: &str = ":ready";
    /// Sorted set: ready messages with an ordering key, by sequence.
    KEY_READY_KEYED: &str = ":ready_keyed";
    /// Sorted set: ready messages with an ordering key, by key and sequence.
    KEY_KEY_ORDER: &str = ":key_order";
    /// Sorted set: delayed messages.
    KEY_DELAYED: &str = ":delayed";
    /// Sorted set: messages that are claimed or reserved for a transfer.
    KEY_CLAIMED: &str = ":claimed";
    /// Hash: delivery state of each message that is not as it was posted.
    KEY_DELIVERY: &str = ":delivery";
    /// Hash: claims, with their terms and sequences.
    KEY_CLAIMS: &str = ":claims";
    /// Sorted set of a queue: claims whose messages have no delivery state yet, by first sequence.
    KEY_DEFERRED_CLAIMS: &str = ":deferred_claims";
    /// Sorted set by time: when claims, messages and deduplication ids have something due.
    KEY_TIMERS: &str = ":timers";
    /// Hash: ordering keys, with their numbers of messages ready and in flight.
    KEY_KEY_STATES: &str = ":key_states";
    /// Sorted set: ordering keys that can be claimed from, by their turn.
    KEY_AVAILABLE_KEYS: &str = ":available_keys";
    /// Sorted set: messages that are dead letters.
    KEY_DEAD_LETTERS: &str = ":dead_letters";
    /// State of a queue's retention log, which is stored like a group.
    KEY_RETENTION_LOG: &str = ":retention_log";
    /// String of a deleted group that a sweep has not removed yet: the key of its queue.
    KEY_QUEUE_OF: &str = ":queue";
    /// String of a dropped queue, for ten minutes: the queue cannot be opened again.
    KEY_DROPPED: &str = ":dropped";
    /// Channel of a queue or group: how many more messages can be claimed, whether one was posted,
    /// and the next due time.
    KEY_EVENTS: &str = ":watch";
}

/// Returns the shard of a queue or a group.
pub(crate) fn shard_of(incarnation: Incarnation) -> Shard {
    let [.., last] = incarnation.get().to_be_bytes();
    last
}

/// Returns the incarnation at the end of the key of a state.
pub(crate) fn incarnation_of(key: &str) -> Result<Incarnation> {
    let number = key.rsplit(':').next().and_then(|number| number.parse().ok());
    number.and_then(Incarnation::new).ok_or_else(|| unexpected("a group has a wrong key"))
}

/// Keys of one pool.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Returns the key of the state of a queue or group; its other keys begin with it.
    pub(crate) fn state(&self, incarnation: Incarnation) -> String {
        format!("{}:{{{}}}:{}", self.prefix, shard_of(incarnation), incarnation.get())
    }

    /// Returns the key of a queue's first stream.
    pub(crate) fn messages_1(&self, queue: Incarnation) -> String {
        self.state(queue) + KEY_MESSAGES_1
    }

    /// Returns the channel of a queue or group.
    pub(crate) fn events(&self, incarnation: Incarnation) -> String {
        self.state(incarnation) + KEY_EVENTS
    }

    /// Returns the key of a shard's registry: a sorted set of the states in which something is due.
    pub(crate) fn registry(&self, shard: Shard) -> String {
        format!("{}:{{{shard}}}:due", self.prefix)
    }

    /// Returns a key that never exists, and that each call names after the state and the registry.
    ///
    /// While a slot moves to another master of a Cluster, each of the two masters has some of its
    /// keys. A master refuses a function that names a key which it does not have, so no function
    /// runs with half of a queue's keys: such calls are tried again until the slot has moved.
    pub(crate) fn guard(&self, shard: Shard) -> String {
        format!("{}:{{{shard}}}:none", self.prefix)
    }

    /// Returns the key that is written before the node waits for replicas.
    pub(crate) fn replicated(&self, shard: Shard) -> String {
        format!("{}:{{{shard}}}:replicated", self.prefix)
    }

    /// Returns the key that a health check writes.
    pub(crate) fn check(&self, shard: Shard) -> String {
        format!("{}:{{{shard}}}:check", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_queue_share_the_hash_tag_of_its_shard() {
        let (keys, queue) = (Keys::new("chapar"), Incarnation::new(0x1234).unwrap());
        assert_eq!(keys.state(queue), "chapar:{52}:4660");
        assert_eq!(keys.messages_1(queue), "chapar:{52}:4660:messages1");
        assert_eq!(keys.registry(shard_of(queue)), "chapar:{52}:due");
        assert_eq!(incarnation_of(&keys.state(queue)).unwrap(), queue);
        assert!(incarnation_of("chapar:{52}:due").is_err());
    }

    #[test]
    fn the_keys_of_the_streams_end_in_their_number() {
        assert_eq!(format!("{KEY_MESSAGES}1"), KEY_MESSAGES_1);
        assert_eq!(format!("{KEY_MESSAGES}2"), KEY_MESSAGES_2);
        assert_eq!(format!("{KEY_EXPIRY}1"), KEY_EXPIRY_1);
        assert_eq!(format!("{KEY_EXPIRY}2"), KEY_EXPIRY_2);
    }
}
