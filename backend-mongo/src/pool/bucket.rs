//! Buckets: up to [`CAPACITY`] consecutive messages of one group in one document.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{
    Binary, Bson, Document, RawBsonRef, RawDocument, doc, oid::ObjectId, serialize_to_bson,
    spec::BinarySubtype,
};
use serde::{Deserialize, Serialize};
use storage_traits::Result;

use super::stored_message::{State, StoredMessage};
use crate::error::unexpected;

/// How many messages a bucket holds at most.
pub(super) const CAPACITY: usize = 64;
/// How many positions a bucket covers at most.
pub(super) const CAPACITY_SPAN: i64 = 64;
/// How many bytes of bodies a bucket holds at most. A larger message has a bucket of its own.
pub(super) const CAPACITY_BYTES: usize = 256 * 1024;

/// Stands for "nothing is due".
pub(super) const NEVER: i64 = i64::MAX;

/// Where a message is stored, and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MessageLocation {
    pub(super) bucket: ObjectId,
    pub(super) offset: u32,
    pub(super) group_id: i64,
    pub(super) sequence: i64,
}

/// A bucket in memory, without its bodies.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) id: ObjectId,
    /// The queue whose document commits changes of the bucket.
    pub(super) queue_id: i64,
    pub(super) group_id: i64,
    /// The position of offset 0.
    pub(super) first: i64,
    /// How many positions it covers.
    pub(super) span: u32,
    /// Its remaining messages, by offset.
    pub(super) messages: BTreeMap<u32, StoredMessage>,
    /// How many bodies the stored document contains.
    stored_bodies: usize,
    changed: BTreeSet<u32>,
    removed: BTreeSet<u32>,
}

/// The changes that a commit makes to the document of a bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BucketChange {
    #[serde(rename = "b")]
    pub(super) bucket: ObjectId,
    #[serde(rename = "s")]
    pub(super) set: Document,
    #[serde(rename = "u")]
    pub(super) unset: Vec<String>,
}

impl Bucket {
    pub(super) fn new(queue_id: i64, group_id: i64, first: i64) -> Self {
        Self {
            id: ObjectId::new(),
            queue_id,
            group_id,
            first,
            span: 0,
            messages: BTreeMap::new(),
            stored_bodies: 0,
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Appends a message, and returns its offset.
    pub(super) fn push(&mut self, message: StoredMessage) -> u32 {
        let offset = self.span;
        self.messages.insert(offset, message);
        self.span += 1;
        self.stored_bodies += 1;
        offset
    }

    /// Adds a message at an unused offset.
    pub(super) fn insert(&mut self, offset: u32, message: StoredMessage) {
        self.messages.insert(offset, message);
        self.span = self.span.max(offset + 1);
        self.stored_bodies += 1;
    }

    pub(super) fn last(&self) -> i64 {
        self.first + i64::from(self.span) - 1
    }

    pub(super) fn sequence(&self, offset: u32) -> i64 {
        self.first + i64::from(offset)
    }

    /// Returns the location of the message at an offset.
    pub(super) fn location(&self, offset: u32) -> MessageLocation {
        let sequence = self.sequence(offset);
        MessageLocation { bucket: self.id, offset, group_id: self.group_id, sequence }
    }

    /// Returns the offset of a position, if the bucket covers it.
    pub(super) fn offset(&self, sequence: i64) -> Option<u32> {
        u32::try_from(sequence - self.first).ok().filter(|offset| *offset < self.span)
    }

    /// Returns a message to change, and marks it as changed.
    pub(super) fn change(&mut self, offset: u32) -> Option<&mut StoredMessage> {
        let message = self.messages.get_mut(&offset)?;
        self.changed.insert(offset);
        Some(message)
    }

    pub(super) fn remove(&mut self, offset: u32) -> Option<StoredMessage> {
        let message = self.messages.remove(&offset)?;
        self.changed.remove(&offset);
        self.removed.insert(offset);
        Some(message)
    }

    /// Returns when time alone changes a message of the bucket.
    pub(super) fn next_transition(&self) -> i64 {
        self.messages.values().map(StoredMessage::next_transition).min().unwrap_or(NEVER)
    }

    fn count(&self, state: State) -> i64 {
        let count = self.messages.values().filter(|message| message.state == state).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Returns the fields that are indexed, with `None` for a field that is to be unset.
    fn summary(&self) -> [(&'static str, Option<Bson>); 6] {
        let some = |count: i64| (count > 0).then_some(Bson::Int64(count));
        let free = self.count(State::Ready) + self.count(State::ReadyKeyed);
        let ready_keys: BTreeSet<&str> = self
            .messages
            .values()
            .filter(|message| message.state == State::ReadyKeyed)
            .filter_map(|message| message.key.as_deref())
            .collect();
        let dead_letters =
            self.messages.values().filter(|message| message.origin.is_some()).count();
        [
            // The sweep finds an empty bucket, which is kept while the journal names it, by this
            // time.
            (
                "due",
                Some(Bson::Int64(if self.messages.is_empty() {
                    0
                } else {
                    self.next_transition()
                })),
            ),
            ("ready", some(self.count(State::Ready))),
            ("free", some(free)),
            ("unclaimed", some(free + self.count(State::Delayed))),
            ("dead_letters", some(i64::try_from(dead_letters).unwrap_or(i64::MAX))),
            (
                "keys",
                (!ready_keys.is_empty())
                    .then(|| Bson::Array(ready_keys.into_iter().map(Bson::from).collect())),
            ),
        ]
    }

    /// Returns the document of a new bucket, without its positions.
    pub(super) fn document(&self, bodies: Vec<Vec<u8>>) -> Result<Document> {
        let mut document = doc! {
            "_id": self.id,
            "queue_id": self.queue_id,
            "span": i64::from(self.span),
            "applied_revision": 0_i64,
        };
        document.extend(
            self.summary().into_iter().filter_map(|(name, value)| Some((name.into(), value?))),
        );
        let mut messages = Document::new();
        for (offset, message) in &self.messages {
            messages.insert(offset.to_string(), serialize_to_bson(message).map_err(unexpected)?);
        }
        document.insert("messages", messages);
        let mut stored = Document::new();
        for (offset, bytes) in self.messages.keys().zip(bodies) {
            stored.insert(offset.to_string(), Binary { subtype: BinarySubtype::Generic, bytes });
        }
        document.insert("bodies", stored);
        Ok(document)
    }

    /// Returns whether it has changed since it was loaded or since the last [`Self::take_change`].
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty()
    }

    /// Returns the changes since the last call as an update of the document.
    pub(super) fn take_change(&mut self) -> Result<BucketChange> {
        let (mut set, mut unset) = (Document::new(), Vec::new());
        for (name, value) in self.summary() {
            match value {
                Some(value) => drop(set.insert(name, value)),
                None => unset.push(name.to_owned()),
            }
        }
        for offset in std::mem::take(&mut self.changed) {
            let message =
                self.messages.get(&offset).ok_or_else(|| unexpected("a message is missing"))?;
            let message = serialize_to_bson(message).map_err(unexpected)?;
            set.insert(format!("messages.{offset}"), message);
        }
        unset.extend(self.removed.iter().map(|offset| format!("messages.{offset}")));
        self.removed.clear();
        // Bodies of removed messages are deleted when they are half of all: so each byte is
        // rewritten once on average.
        if self.messages.len() * 2 <= self.stored_bodies {
            let unused = (0..self.span).filter(|offset| !self.messages.contains_key(offset));
            unset.extend(unused.map(|offset| format!("bodies.{offset}")));
            self.stored_bodies = self.messages.len();
        }
        Ok(BucketChange { bucket: self.id, set, unset })
    }

    /// Reads a document that was loaded without its bodies.
    pub(super) fn read(raw: &RawDocument) -> Result<LoadedBucket> {
        let wrong = |what: &'static str| move || unexpected(what);
        let number = |name: &str| match raw.get(name) {
            Ok(Some(RawBsonRef::Int64(number))) => Ok(Some(number)),
            Ok(None) => Ok(None),
            _ => Err(unexpected("a bucket has a wrong field")),
        };
        let mut messages = BTreeMap::new();
        for entry in raw.get_document("messages").map_err(unexpected)? {
            let (offset, message) = entry.map_err(unexpected)?;
            let offset = offset.as_str().parse().map_err(unexpected)?;
            let message =
                message.as_document().ok_or_else(wrong("a bucket has a wrong message"))?;
            messages.insert(offset, StoredMessage::read(message)?);
        }
        let span = number("span")?.and_then(|span| u32::try_from(span).ok());
        let span = span.ok_or_else(wrong("a bucket has a wrong span"))?;
        let bucket = Self {
            id: raw.get_object_id("_id").map_err(unexpected)?,
            queue_id: number("queue_id")?.ok_or_else(wrong("a bucket has no queue_id"))?,
            group_id: number("group_id")?.unwrap_or(0),
            first: number("first")?.unwrap_or(0),
            span,
            // `take_change` has deleted the others when they were half of all.
            stored_bodies: if messages.len() * 2 <= span as usize {
                messages.len()
            } else {
                span as usize
            },
            messages,
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        Ok(LoadedBucket { has_position: number("first")?.is_some(), bucket })
    }
}

/// Returns the fields that give a bucket its positions in a group.
pub(super) fn position_fields(group_id: i64, first: i64, span: u32) -> Document {
    doc! { "group_id": group_id, "first": first, "last": first + i64::from(span) - 1 }
}

/// A bucket as it is stored.
pub(super) struct LoadedBucket {
    pub(super) bucket: Bucket,
    /// Whether it has its positions already. If not, the journal has them.
    pub(super) has_position: bool,
}
