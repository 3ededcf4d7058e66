//! The document of a queue: its counters, the delivery state of its groups, and the journal of
//! commits that may not have been applied yet.

use std::collections::BTreeMap;

use mongodb::bson::{DateTime, Document, oid::ObjectId};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, Timestamp},
    support::SlidingMinuteCounter,
};

use super::bucket::BucketChange;
use crate::error::unexpected;

/// How many milliseconds a journal entry is left to the node that committed it.
const STALE_AFTER: i64 = 30_000;
/// Stands for the last position of the queue at the time of the commit, as the end of a backfill.
pub(super) const AT_END: i64 = i64::MAX;

/// An open queue.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct QueueDocument {
    #[serde(rename = "_id")]
    pub(super) id: i64,
    /// Raised by each commit except those of plain posts.
    pub(super) revision: i64,
    /// Raised when a group is created or deleted.
    pub(super) groups_version: i64,
    /// The last position that was allocated.
    pub(super) tail: i64,
    /// The groups by id, in decimal digits. The first is the default group, whose id is the
    /// queue's.
    pub(super) groups: BTreeMap<String, GroupState>,
    /// The number of the last transfer that arrived from each queue, by that queue's id.
    #[serde(default)]
    pub(super) last_transfer_from: BTreeMap<String, i64>,
    pub(super) journal: Vec<JournalEntry>,
    /// Transfers to other queues that were not delivered yet.
    #[serde(default)]
    pub(super) outgoing_transfers: Vec<OutgoingTransfer>,
}

/// The delivery state of the default group, of a named group, or of the retention log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct GroupState {
    /// Ready messages without an ordering key.
    pub(super) ready: i64,
    pub(super) delayed: i64,
    #[serde(default)]
    pub(super) claimed: i64,
    /// Ready messages with an ordering key.
    #[serde(default)]
    pub(super) ready_keyed: i64,
    /// Messages with an origin.
    #[serde(default)]
    pub(super) dead_letters: i64,
    /// Ordering keys that have messages.
    #[serde(default)]
    pub(super) keys: i64,
    /// Ordering keys that a claim may take from.
    #[serde(default)]
    pub(super) available_keys: i64,
    /// The last number that was given out for the round-robin order of keys.
    #[serde(default)]
    pub(super) rotations: i64,
    /// The place of the messages without a key in that order.
    #[serde(default)]
    pub(super) unkeyed_rotation: i64,
    /// The first time that a redrive with a rate may use.
    #[serde(default)]
    pub(super) next_redrive: i64,
    /// Completed messages: the current minute, the count in it, and the count in the minute before.
    #[serde(default)]
    pub(super) completed: [i64; 3],
    /// Set for a named group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) definition: Option<GroupDefinition>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_retention_log: bool,
    /// What is still to be copied from the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backfill: Option<Backfill>,
}

/// A named group as its owner defined it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupDefinition {
    pub(super) name: String,
    pub(super) settings: String,
    pub(super) created_at: i64,
}

/// A copy of the messages after one position, up to another, that were posted at `since` or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backfill {
    pub(super) after: i64,
    pub(super) up_to: i64,
    pub(super) since: i64,
    pub(super) requested_at: i64,
}

/// Dead letters or redriven messages that were removed from this queue and are to be delivered to
/// another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutgoingTransfer {
    /// The document that holds the messages.
    pub(super) transfer: ObjectId,
    pub(super) to: i64,
    /// Rises with each transfer of this queue, so that the target detects repetitions.
    pub(super) number: i64,
    pub(super) audience: Audience,
    pub(super) moved_at: i64,
}

/// The groups of the target queue that receive a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Audience {
    /// The queue, all its groups, and groups that are created later.
    #[serde(rename = "all_and_later")]
    AllAndLater,
    /// The queue and all its groups.
    #[serde(rename = "all")]
    All,
    /// The queue alone.
    #[serde(rename = "queue")]
    Queue,
    /// This group alone.
    #[serde(rename = "group")]
    Group(String),
}

/// The changes of one commit to other documents. Applying it is idempotent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    /// Identifies the commit, so that its node can find out whether it succeeded.
    pub(super) commit_id: i64,
    /// The revision that the commit creates. Documents with this or a later one are not changed.
    pub(super) revision: i64,
    /// The first position that the commit allocated.
    #[serde(default, skip_serializing)]
    pub(super) first_position: i64,
    /// When it was committed, by the server's clock.
    #[serde(default, skip_serializing)]
    pub(super) committed_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) placements: Vec<Placement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<BucketChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) emptied_buckets: Vec<ObjectId>,
    /// Fields of claims that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) claims: Vec<Document>,
    /// Ordering keys as they are after the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<Document>,
    /// Deduplication records as they are after the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dedup_records: Vec<Document>,
}

/// Gives a new bucket its positions in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placement {
    pub(super) bucket: ObjectId,
    pub(super) group_id: i64,
    /// The first position of the bucket: relative to the first of the commit, unless `absolute`.
    pub(super) offset: i64,
    pub(super) span: i64,
    /// How many of its messages are delayed.
    #[serde(default)]
    pub(super) delayed: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) absolute: bool,
}

impl JournalEntry {
    /// Returns whether the entry contains nothing but placements.
    pub(super) const fn is_plain_post(&self) -> bool {
        self.changes.is_empty()
            && self.emptied_buckets.is_empty()
            && self.claims.is_empty()
            && self.keys.is_empty()
            && self.dedup_records.is_empty()
    }
}

impl Placement {
    /// Returns the first position of the bucket.
    pub(super) const fn first(&self, entry: &JournalEntry) -> i64 {
        if self.absolute { self.offset } else { entry.first_position + self.offset }
    }
}

impl QueueDocument {
    /// Returns when the last entry of the journal was committed, by the server's clock.
    pub(super) fn last_commit_at(&self) -> Option<DateTime> {
        self.journal.iter().filter_map(|entry| entry.committed_at).max()
    }

    /// Returns the entries that are older than [`STALE_AFTER`]: their node has crashed, or has
    /// reported to its callers that their outcome is unknown.
    pub(super) fn stale_entries(&self, time: DateTime) -> Vec<JournalEntry> {
        let before = time.timestamp_millis() - STALE_AFTER;
        let is_stale = |entry: &&JournalEntry| {
            entry.committed_at.is_some_and(|at| at.timestamp_millis() < before)
        };
        self.journal.iter().filter(is_stale).cloned().collect()
    }

    pub(super) fn group(&self, group_id: i64) -> Option<&GroupState> {
        self.groups.get(&group_id.to_string())
    }

    pub(super) fn group_mut(&mut self, group_id: i64) -> Result<&mut GroupState> {
        self.groups
            .get_mut(&group_id.to_string())
            .ok_or_else(|| unexpected("a group is missing from its queue's document"))
    }

    /// Returns the ids of the groups that receive new messages: the default group and the named
    /// ones.
    pub(super) fn receiving_groups(&self) -> Vec<i64> {
        let receiving = self.groups.iter().filter(|(_, group)| !group.is_retention_log);
        receiving.filter_map(|(id, _)| id.parse().ok()).collect()
    }

    /// Returns the ids of the named groups.
    pub(super) fn named_groups(&self) -> Vec<i64> {
        self.receiving_groups().into_iter().filter(|id| *id != self.id).collect()
    }

    /// Returns the id of the retention log.
    pub(super) fn retention_log(&self) -> Option<i64> {
        let log = self.groups.iter().find(|(_, group)| group.is_retention_log);
        log.and_then(|(id, _)| id.parse().ok())
    }

    /// Returns the id of the group with this name.
    pub(super) fn group_named(&self, name: &str) -> Option<i64> {
        let has_name =
            |group: &GroupState| group.definition.as_ref().is_some_and(|it| it.name == name);
        let found = self.groups.iter().find(|(_, group)| has_name(group));
        found.and_then(|(id, _)| id.parse().ok())
    }
}

impl GroupState {
    /// Allocates the last place in the round-robin order of keys.
    pub(super) const fn next_rotation(&mut self) -> i64 {
        self.rotations += 1;
        self.rotations
    }

    pub(super) fn completed_counter(&self) -> SlidingMinuteCounter {
        let [minute, count, previous] = self.completed;
        let count_of = |number| u64::try_from(number).unwrap_or(0);
        SlidingMinuteCounter { minute, count: count_of(count), previous: count_of(previous) }
    }

    /// Counts messages that were acknowledged, deleted or popped.
    pub(super) fn add_completed(&mut self, count: usize, now: Timestamp) {
        let mut counter = self.completed_counter();
        counter.add(count as u64, now);
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.completed = [counter.minute, number(counter.count), number(counter.previous)];
    }

    /// Returns the number of messages without a live claim.
    pub(super) const fn unclaimed(&self) -> i64 {
        self.ready + self.ready_keyed + self.delayed
    }
}

impl GroupDefinition {
    pub(super) fn new(name: &GroupName, settings: &Metadata, now: Timestamp) -> Self {
        Self {
            name: name.as_str().to_owned(),
            settings: settings.to_json(),
            created_at: now.as_millis(),
        }
    }

    /// Returns the group as the contract has it.
    pub(super) fn to_group(&self, queue: &QueueRef, group_id: i64) -> Result<Group> {
        let incarnation =
            Incarnation::new(group_id).ok_or_else(|| unexpected("a group id is not positive"))?;
        Ok(Group {
            name: self.name.parse().map_err(unexpected)?,
            as_queue: QueueRef { key: queue.key.clone(), incarnation },
            settings: Metadata::from_json(&self.settings).map_err(unexpected)?,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}
