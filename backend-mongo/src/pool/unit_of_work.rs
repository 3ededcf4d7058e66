//! A unit of work: several operations on one queue, computed in memory and committed together.
//!
//! It loads documents into the [`QueueCache`] (`loading.rs`) and changes them there. Its commit
//! adds the changes as a [`JournalEntry`](super::queue_document::JournalEntry) to the queue's
//! document.

use std::collections::{BTreeSet, HashMap, HashSet};

use mongodb::bson::{Document, oid::ObjectId};
use storage_traits::{
    Result,
    domain::{Incarnation, MessageId},
    pool::EventCounts,
};

use super::{
    bodies::{BodyRef, Final, MessageWithoutBody},
    bucket::{Bucket, MessageLocation, NEVER},
    cache::QueueCache,
    collections::Collections,
    queue_document::{GroupState, QueueDocument},
    side_documents::ClaimRecord,
    stored_message::StoredMessage,
};
use crate::error::unexpected;

/// How many messages one unit of work expires, moves, copies or purges at most.
pub(super) const MAX_UNIT_MESSAGES: usize = 256;

/// Whether an operation has finished, or continues in the next unit of work.
pub(super) enum Progress<T> {
    Done(T),
    Again,
}

impl<T> Progress<Final<T>> {
    /// Finishes with a result that contains neither messages nor positions.
    pub(super) const fn done(value: T) -> Self {
        Self::Done(Final(value))
    }
}

/// A bucket that the unit of work creates.
pub(super) struct NewBucket {
    pub(super) bucket: Bucket,
    pub(super) bodies: Vec<Vec<u8>>,
    /// Whether its positions are final: it copies messages that have positions already.
    pub(super) absolute: bool,
}

pub(super) struct UnitOfWork<'l> {
    pub(super) collections: Collections,
    pub(super) queue_id: i64,
    /// The queue before the unit of work; `None` if there is no such queue.
    pub(super) base: Option<QueueDocument>,
    /// The queue after the unit of work.
    pub(super) document: Option<QueueDocument>,
    pub(super) cache: &'l mut QueueCache,
    /// The first position that was allocated but whose bucket was not found.
    pub(super) first_missing: Option<i64>,
    pub(super) new_buckets: Vec<NewBucket>,
    pub(super) new_claims: Vec<ClaimRecord>,
    pub(super) changed_claims: Vec<ClaimRecord>,
    /// Ordering keys that changed, by group.
    pub(super) changed_keys: BTreeSet<(i64, String)>,
    /// Ids of the deduplication records that changed.
    pub(super) dedup_records: BTreeSet<String>,
    /// Documents of transfers to other queues.
    pub(super) transfers: Vec<Document>,
    pub(super) deleted_groups: Vec<i64>,
    /// Bodies of the messages that callers get.
    pub(super) wanted_bodies: Vec<BodyRef>,
    pub(super) changed_buckets: HashSet<ObjectId>,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
    /// Whether it removes messages that a caller gets: another node may delete their bodies as soon
    /// as it is committed.
    pub(super) read_bodies_before_commit: bool,
    pub(super) changed_messages: usize,
    /// Groups that received messages.
    pub(super) posted: BTreeSet<i64>,
    /// How many messages became claimable, by group.
    pub(super) newly_claimable: HashMap<i64, usize>,
    /// When a changed message is due next, by group.
    pub(super) next_due: HashMap<i64, i64>,
    pub(super) event_counts: EventCounts,
}

impl<'l> UnitOfWork<'l> {
    pub(super) fn new(
        collections: &Collections,
        queue_id: i64,
        document: Option<QueueDocument>,
        cache: &'l mut QueueCache,
        first_missing: Option<i64>,
    ) -> Self {
        Self {
            collections: collections.clone(),
            queue_id,
            base: document.clone(),
            document,
            cache,
            first_missing,
            new_buckets: Vec::new(),
            new_claims: Vec::new(),
            changed_claims: Vec::new(),
            changed_keys: BTreeSet::new(),
            dedup_records: BTreeSet::new(),
            transfers: Vec::new(),
            deleted_groups: Vec::new(),
            wanted_bodies: Vec::new(),
            changed_buckets: HashSet::new(),
            dirty: false,
            read_bodies_before_commit: false,
            changed_messages: 0,
            posted: BTreeSet::new(),
            newly_claimable: HashMap::new(),
            next_due: HashMap::new(),
            event_counts: EventCounts::default(),
        }
    }

    /// Returns how many positions it allocates.
    pub(super) fn allocated_positions(&self) -> i64 {
        let tail = |document: &Option<QueueDocument>| document.as_ref().map_or(0, |it| it.tail);
        tail(&self.document) - tail(&self.base)
    }

    /// Returns whether the queue exists and has this group.
    pub(super) fn has_group(&self, group_id: i64) -> bool {
        self.document.as_ref().is_some_and(|document| document.group(group_id).is_some())
    }

    pub(super) fn document(&mut self) -> Result<&mut QueueDocument> {
        self.document.as_mut().ok_or_else(|| unexpected("a queue that does not exist was changed"))
    }

    pub(super) fn group(&mut self, group_id: i64) -> Result<&mut GroupState> {
        self.document()?.group_mut(group_id)
    }

    pub(super) fn incarnation(&self) -> Result<Incarnation> {
        Incarnation::new(self.queue_id).ok_or_else(|| unexpected("a queue id is not positive"))
    }

    /// Returns the positions of the ids that belong to this queue and incarnation.
    pub(super) fn own_sequences(&self, ids: &[MessageId]) -> Vec<i64> {
        let own = ids.iter().filter(|id| id.incarnation.get() == self.queue_id);
        own.map(|id| id.sequence.get()).collect()
    }

    /// Records that more messages of a group can be claimed.
    pub(super) fn record_claimable(&mut self, group_id: i64, count: usize) {
        *self.newly_claimable.entry(group_id).or_default() += count;
    }

    /// Records that a message of a group is due at this time.
    pub(super) fn record_due(&mut self, group_id: i64, due: i64) {
        let earliest = self.next_due.entry(group_id).or_insert(NEVER);
        *earliest = due.min(*earliest);
    }

    pub(super) fn stored(&self, at: MessageLocation) -> Result<&StoredMessage> {
        self.cache.stored(at).ok_or_else(|| unexpected("a message is missing"))
    }

    /// Changes a message, and returns it as it is then.
    pub(super) fn change(
        &mut self,
        at: MessageLocation,
        change: impl FnOnce(&mut StoredMessage),
    ) -> Result<StoredMessage> {
        self.mark_changed(at.bucket);
        self.cache.change(at, change).ok_or_else(|| unexpected("a message is missing"))
    }

    /// Deletes a message from its bucket, without counting it.
    pub(super) fn delete_message(&mut self, at: MessageLocation) -> Result<StoredMessage> {
        self.mark_changed(at.bucket);
        self.cache.remove(at).ok_or_else(|| unexpected("a message is missing"))
    }

    fn mark_changed(&mut self, bucket: ObjectId) {
        self.dirty = true;
        self.changed_messages += 1;
        self.changed_buckets.insert(bucket);
    }

    /// Returns a message for a caller. Its body is attached after the commit.
    pub(super) fn message_for_caller(&mut self, at: MessageLocation) -> Result<MessageWithoutBody> {
        let body = (at.bucket, at.offset);
        self.wanted_bodies.push(body);
        MessageWithoutBody::new(self.stored(at)?, self.incarnation()?, at.sequence, body)
    }
}
