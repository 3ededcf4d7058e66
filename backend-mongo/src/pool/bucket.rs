//! Buckets: up to [`CAPACITY`] messages of one reading that lie side by side, in one document.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{
    Binary, Bson, Document, RawBsonRef, RawDocument, doc, oid::ObjectId, serialize_to_bson,
    spec::BinarySubtype,
};
use serde::{Deserialize, Serialize};
use storage_traits::Result;

use super::slot::{Slot, State};
use crate::error::unexpected;

/// How many messages a bucket holds at the most.
pub(super) const CAPACITY: usize = 64;
/// How many positions that is.
pub(super) const CAPACITY_SPAN: i64 = 64;
/// How many bytes of bodies a bucket holds at the most; a message of more has one by itself.
pub(super) const CAPACITY_BYTES: usize = 256 * 1024;

/// Stands for "nothing is due".
pub(super) const NEVER: i64 = i64::MAX;

/// A bucket in memory, without its bodies.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) id: ObjectId,
    /// The queue in whose document its changes are committed.
    pub(super) home: i64,
    pub(super) reading: i64,
    /// The position of offset 0.
    pub(super) first: i64,
    /// How many positions it spans.
    pub(super) span: u32,
    /// What is left of its messages, by offset.
    pub(super) slots: BTreeMap<u32, Slot>,
    /// How many bodies lie in the document.
    bodies: usize,
    changed: BTreeSet<u32>,
    removed: BTreeSet<u32>,
}

/// What a commit changes in the document of a bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Change {
    #[serde(rename = "b")]
    pub(super) bucket: ObjectId,
    #[serde(rename = "s")]
    pub(super) set: Document,
    #[serde(rename = "u")]
    pub(super) unset: Vec<String>,
}

impl Bucket {
    pub(super) fn new(home: i64, reading: i64, first: i64) -> Self {
        Self {
            id: ObjectId::new(),
            home,
            reading,
            first,
            span: 0,
            slots: BTreeMap::new(),
            bodies: 0,
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Adds a message behind the others.
    pub(super) fn push(&mut self, slot: Slot) -> u32 {
        let offset = self.span;
        self.slots.insert(offset, slot);
        self.span += 1;
        self.bodies += 1;
        offset
    }

    /// Adds a message at an offset that is free.
    pub(super) fn put(&mut self, offset: u32, slot: Slot) {
        self.slots.insert(offset, slot);
        self.span = self.span.max(offset + 1);
        self.bodies += 1;
    }

    pub(super) fn last(&self) -> i64 {
        self.first + i64::from(self.span) - 1
    }

    pub(super) fn sequence(&self, offset: u32) -> i64 {
        self.first + i64::from(offset)
    }

    /// The offset of a position, if the bucket spans it.
    pub(super) fn offset(&self, sequence: i64) -> Option<u32> {
        u32::try_from(sequence - self.first).ok().filter(|offset| *offset < self.span)
    }

    /// A message that is about to be changed.
    pub(super) fn change(&mut self, offset: u32) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(&offset)?;
        self.changed.insert(offset);
        Some(slot)
    }

    pub(super) fn remove(&mut self, offset: u32) -> Option<Slot> {
        let slot = self.slots.remove(&offset)?;
        self.changed.remove(&offset);
        self.removed.insert(offset);
        Some(slot)
    }

    /// When time alone changes something in it.
    pub(super) fn due(&self) -> i64 {
        self.slots.values().map(Slot::due).min().unwrap_or(NEVER)
    }

    fn count(&self, state: State) -> i64 {
        let count = self.slots.values().filter(|slot| slot.state == state).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// What the indexes are over, each field with its value or none.
    fn summary(&self) -> [(&'static str, Option<Bson>); 6] {
        let some = |count: i64| (count > 0).then_some(Bson::Int64(count));
        let available = self.count(State::Ready) + self.count(State::InLine);
        let waiting: BTreeSet<&str> = self
            .slots
            .values()
            .filter(|slot| slot.state == State::InLine)
            .filter_map(|slot| slot.key.as_deref())
            .collect();
        let letters = self.slots.values().filter(|slot| slot.origin.is_some()).count();
        [
            // An empty one that is kept for a while is to be found by the sweep.
            ("due", Some(Bson::Int64(if self.slots.is_empty() { 0 } else { self.due() }))),
            ("ready", some(self.count(State::Ready))),
            ("free", some(available)),
            ("unclaimed", some(available + self.count(State::Delayed))),
            ("letters", some(i64::try_from(letters).unwrap_or(i64::MAX))),
            (
                "keys",
                (!waiting.is_empty())
                    .then(|| Bson::Array(waiting.into_iter().map(Bson::from).collect())),
            ),
        ]
    }

    /// The whole document of a new bucket; without a place in the queue if that is still open.
    pub(super) fn document(&self, bodies: Vec<Vec<u8>>, placed: bool) -> Result<Document> {
        let mut document = doc! {
            "_id": self.id,
            "home": self.home,
            "span": i64::from(self.span),
            "version": 0_i64,
        };
        if placed {
            document.extend(self.place(self.first));
        }
        document.extend(
            self.summary().into_iter().filter_map(|(name, value)| Some((name.into(), value?))),
        );
        let mut slots = Document::new();
        for (offset, slot) in &self.slots {
            slots.insert(offset.to_string(), serialize_to_bson(slot).map_err(unexpected)?);
        }
        document.insert("slots", slots);
        let mut stored = Document::new();
        for (offset, bytes) in self.slots.keys().zip(bodies) {
            stored.insert(offset.to_string(), Binary { subtype: BinarySubtype::Generic, bytes });
        }
        document.insert("bodies", stored);
        Ok(document)
    }

    /// The fields that give it a place in its queue.
    pub(super) fn place(&self, first: i64) -> Document {
        place(self.reading, first, self.span)
    }

    /// Whether it has changed since it was loaded or last committed.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty()
    }

    /// What has changed, as its document is to be changed; from now on nothing has.
    pub(super) fn take_change(&mut self) -> Result<Change> {
        let (mut set, mut unset) = (Document::new(), Vec::new());
        for (name, value) in self.summary() {
            match value {
                Some(value) => drop(set.insert(name, value)),
                None => unset.push(name.to_owned()),
            }
        }
        for offset in std::mem::take(&mut self.changed) {
            let slot = self.slots.get(&offset).ok_or_else(|| unexpected("a slot is missing"))?;
            let slot = serialize_to_bson(slot).map_err(unexpected)?;
            set.insert(format!("slots.{offset}"), slot);
        }
        unset.extend(self.removed.iter().map(|offset| format!("slots.{offset}")));
        self.removed.clear();
        // Bodies go when half of them are of no use: each is moved by that once, on average.
        if self.slots.len() * 2 <= self.bodies {
            let gone = (0..self.span).filter(|offset| !self.slots.contains_key(offset));
            unset.extend(gone.map(|offset| format!("bodies.{offset}")));
            self.bodies = self.slots.len();
        }
        Ok(Change { bucket: self.id, set, unset })
    }

    /// Reads a document that was loaded without its bodies.
    pub(super) fn read(raw: &RawDocument) -> Result<Stored> {
        let wrong = |what: &'static str| move || unexpected(what);
        let number = |name: &str| match raw.get(name) {
            Ok(Some(RawBsonRef::Int64(number))) => Ok(Some(number)),
            Ok(None) => Ok(None),
            _ => Err(unexpected("a bucket has a wrong field")),
        };
        let mut slots = BTreeMap::new();
        for entry in raw.get_document("slots").map_err(unexpected)? {
            let (offset, slot) = entry.map_err(unexpected)?;
            let offset = offset.as_str().parse().map_err(unexpected)?;
            let slot = slot.as_document().ok_or_else(wrong("a bucket has a wrong slot"))?;
            slots.insert(offset, Slot::read(slot)?);
        }
        let span = number("span")?.and_then(|span| u32::try_from(span).ok());
        let span = span.ok_or_else(wrong("a bucket has a wrong span"))?;
        let bucket = Self {
            id: raw.get_object_id("_id").map_err(unexpected)?,
            home: number("home")?.ok_or_else(wrong("a bucket has no home"))?,
            reading: number("reading")?.unwrap_or(0),
            first: number("first")?.unwrap_or(0),
            span,
            // Those that are of no use were removed when they were the half of all.
            bodies: if slots.len() * 2 <= span as usize { slots.len() } else { span as usize },
            slots,
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        Ok(Stored { placed: number("first")?.is_some(), bucket })
    }
}

/// The fields that give a bucket a place in its queue.
pub(super) fn place(reading: i64, first: i64, span: u32) -> Document {
    doc! { "reading": reading, "first": first, "last": first + i64::from(span) - 1 }
}

/// A bucket as it lies in the database.
pub(super) struct Stored {
    pub(super) bucket: Bucket,
    /// Whether it has a place in its queue.
    pub(super) placed: bool,
}
