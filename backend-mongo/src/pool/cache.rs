//! What a worker keeps of its queue between two units of work.
//!
//! The cache is valid as long as no other node has committed a unit of work of the queue, which the
//! revision shows. A cached document takes precedence over the stored one: earlier commits may not
//! have been applied to that yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mongodb::bson::oid::ObjectId;

use super::{
    bucket::{Bucket, MessageLocation, NEVER},
    side_documents::{ClaimRecord, DedupRecord, KeyState},
    stored_message::{State, StoredMessage},
};

#[derive(Debug, Default)]
pub(super) struct QueueCache {
    buckets: HashMap<ObjectId, Bucket>,
    /// By group and first position.
    by_position: BTreeMap<(i64, i64), ObjectId>,
    /// Ready messages without an ordering key, by group and position.
    ready: BTreeSet<(i64, i64)>,
    /// Ready messages with an ordering key, by group and key.
    ready_keyed: HashMap<(i64, String), BTreeSet<i64>>,
    /// By group and due time.
    by_due: BTreeSet<(i64, i64, ObjectId)>,
    due_times: HashMap<ObjectId, i64>,
    /// Buckets without messages that are still to be deleted.
    empty: HashSet<ObjectId>,
    /// Buckets that were deleted by a commit that may not have been applied yet.
    pub(super) deleted: HashSet<ObjectId>,
    /// Ordering keys by group; `None` for one that is not stored.
    pub(super) keys: BTreeMap<(i64, String), Option<KeyState>>,
    /// Claims by group; `None` for one that is not stored.
    pub(super) claims: HashMap<(i64, [u8; 16]), Option<ClaimRecord>>,
    /// Deduplication records by document id; `None` for one that is not stored.
    pub(super) dedup_records: HashMap<String, Option<DedupRecord>>,
    pub(super) loaded_up_to: LoadedUpTo,
}

/// How much of the queue the cache contains.
#[derive(Debug, Default)]
pub(super) struct LoadedUpTo {
    /// By group: the position up to which all ready messages without a key are cached.
    pub(super) ready: HashMap<i64, i64>,
    /// By group and key: the position up to which all ready messages are cached.
    pub(super) ready_keyed: HashMap<(i64, String), i64>,
    /// By group: the place in the round-robin order up to which all available keys are cached.
    pub(super) rotations: HashMap<i64, i64>,
    /// By group: the time up to which all buckets with due messages are cached.
    pub(super) due: HashMap<i64, i64>,
}

impl QueueCache {
    /// Returns the number of documents.
    pub(super) fn len(&self) -> usize {
        let side_documents = self.keys.len() + self.claims.len() + self.dedup_records.len();
        self.buckets.len() + self.deleted.len() + side_documents
    }

    /// Returns whether the state of a bucket is known: it is cached, or deleted.
    pub(super) fn contains(&self, bucket: ObjectId) -> bool {
        self.buckets.contains_key(&bucket) || self.deleted.contains(&bucket)
    }

    pub(super) fn bucket(&self, bucket: ObjectId) -> Option<&Bucket> {
        self.buckets.get(&bucket)
    }

    /// Returns a bucket for changes that do not affect its messages.
    pub(super) fn bucket_mut(&mut self, bucket: ObjectId) -> Option<&mut Bucket> {
        self.buckets.get_mut(&bucket)
    }

    /// Adds a bucket, unless its state is known.
    pub(super) fn add(&mut self, bucket: Bucket) {
        if self.contains(bucket.id) {
            return;
        }
        for (offset, message) in &bucket.messages {
            self.index_message(bucket.group_id, bucket.sequence(*offset), message);
        }
        let id = bucket.id;
        if bucket.messages.is_empty() {
            self.empty.insert(id);
        }
        self.by_position.insert((bucket.group_id, bucket.first), id);
        self.buckets.insert(id, bucket);
        self.refresh_due(id);
    }

    pub(super) fn empty_buckets(&self) -> impl Iterator<Item = ObjectId> {
        self.empty.iter().copied()
    }

    /// Removes a bucket that a commit deleted.
    pub(super) fn evict(&mut self, id: ObjectId) {
        self.empty.remove(&id);
        if let Some(bucket) = self.buckets.remove(&id) {
            self.by_position.remove(&(bucket.group_id, bucket.first));
            if let Some(due) = self.due_times.remove(&id) {
                self.by_due.remove(&(bucket.group_id, due, id));
            }
            self.deleted.insert(id);
        }
    }

    fn index_message(&mut self, group_id: i64, sequence: i64, message: &StoredMessage) {
        match (message.state, &message.key) {
            (State::Ready, _) => drop(self.ready.insert((group_id, sequence))),
            (State::ReadyKeyed, Some(key)) => {
                self.ready_keyed.entry((group_id, key.clone())).or_default().insert(sequence);
            }
            _ => {}
        }
    }

    fn unindex_message(&mut self, group_id: i64, sequence: i64, message: &StoredMessage) {
        match (message.state, &message.key) {
            (State::Ready, _) => drop(self.ready.remove(&(group_id, sequence))),
            (State::ReadyKeyed, Some(key)) => {
                if let Some(sequences) = self.ready_keyed.get_mut(&(group_id, key.clone())) {
                    sequences.remove(&sequence);
                }
            }
            _ => {}
        }
    }

    /// Changes a message, and returns it as it is then.
    pub(super) fn change(
        &mut self,
        at: MessageLocation,
        change: impl FnOnce(&mut StoredMessage),
    ) -> Option<StoredMessage> {
        let before = self.stored(at)?.clone();
        let message = self.buckets.get_mut(&at.bucket)?.change(at.offset)?;
        change(message);
        let after = message.clone();
        self.unindex_message(at.group_id, at.sequence, &before);
        self.index_message(at.group_id, at.sequence, &after);
        self.refresh_due(at.bucket);
        Some(after)
    }

    pub(super) fn remove(&mut self, at: MessageLocation) -> Option<StoredMessage> {
        let message = self.buckets.get_mut(&at.bucket)?.remove(at.offset)?;
        self.unindex_message(at.group_id, at.sequence, &message);
        self.refresh_due(at.bucket);
        if self.buckets.get(&at.bucket).is_some_and(|bucket| bucket.messages.is_empty()) {
            self.empty.insert(at.bucket);
        }
        Some(message)
    }

    fn refresh_due(&mut self, id: ObjectId) {
        if let Some(bucket) = self.buckets.get(&id) {
            let (group_id, due) = (bucket.group_id, bucket.next_transition());
            if let Some(before) = self.due_times.insert(id, due) {
                self.by_due.remove(&(group_id, before, id));
            }
            self.by_due.insert((group_id, due, id));
        }
    }

    pub(super) fn stored(&self, at: MessageLocation) -> Option<&StoredMessage> {
        self.buckets.get(&at.bucket)?.messages.get(&at.offset)
    }

    /// Returns whether a cached bucket covers a position.
    pub(super) fn covers(&self, group_id: i64, sequence: i64) -> bool {
        self.covering(group_id, sequence).is_some()
    }

    fn covering(&self, group_id: i64, sequence: i64) -> Option<&Bucket> {
        let range = (group_id, i64::MIN)..=(group_id, sequence);
        let (_, id) = self.by_position.range(range).next_back()?;
        self.buckets.get(id).filter(|bucket| bucket.offset(sequence).is_some())
    }

    /// Returns the message in a position.
    pub(super) fn find(&self, group_id: i64, sequence: i64) -> Option<MessageLocation> {
        let bucket = self.covering(group_id, sequence)?;
        let offset = bucket.offset(sequence)?;
        bucket.messages.contains_key(&offset).then(|| bucket.location(offset))
    }

    /// Returns the buckets of a group that end after a position, in order.
    pub(super) fn buckets_after(&self, group_id: i64, after: i64) -> impl Iterator<Item = &Bucket> {
        // The last bucket that starts before the position may end after it.
        let start = self
            .by_position
            .range((group_id, i64::MIN)..=(group_id, after))
            .next_back()
            .map_or(i64::MIN, |((_, first), _)| *first);
        self.by_position
            .range((group_id, start)..=(group_id, i64::MAX))
            .filter_map(|(_, id)| self.buckets.get(id))
            .filter(move |bucket| bucket.last() > after)
    }

    /// Returns the buckets of a group, the last first.
    pub(super) fn buckets_backward(&self, group_id: i64) -> impl Iterator<Item = &Bucket> {
        let all = self.by_position.range((group_id, i64::MIN)..=(group_id, i64::MAX)).rev();
        all.filter_map(|(_, id)| self.buckets.get(id))
    }

    /// Returns the first ready messages without a key up to a position.
    pub(super) fn first_ready(
        &self,
        group_id: i64,
        up_to: i64,
        limit: usize,
    ) -> Vec<MessageLocation> {
        let range = self.ready.range((group_id, i64::MIN)..=(group_id, up_to)).take(limit);
        range.filter_map(|(_, sequence)| self.find(group_id, *sequence)).collect()
    }

    /// Returns the positions of the cached ready messages with an ordering key.
    pub(super) fn ready_keyed(&self, group_id: i64, key: &str) -> Option<&BTreeSet<i64>> {
        self.ready_keyed.get(&(group_id, key.to_owned()))
    }

    /// Returns the cached buckets of a group in which a message is due.
    pub(super) fn due(&self, group_id: i64, now: i64) -> Vec<ObjectId> {
        let range = self.by_due.range((group_id, i64::MIN, ObjectId::from_bytes([0; 12]))..);
        let due = range.take_while(|(of, due, _)| *of == group_id && *due <= now);
        due.map(|(_, _, id)| *id).collect()
    }

    /// Returns when the next cached message of a group is due.
    pub(super) fn next_due(&self, group_id: i64) -> i64 {
        let mut range = self.by_due.range((group_id, i64::MIN, ObjectId::from_bytes([0; 12]))..);
        range.next().filter(|(of, ..)| *of == group_id).map_or(NEVER, |(_, due, _)| *due)
    }
}
