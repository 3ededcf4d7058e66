//! What a lane remembers of its queue from one step to the next.
//!
//! It is true as long as nobody else has committed a step of the queue, which the epoch tells. A
//! document that is here is not looked at in the database: what was committed may not have been
//! carried out there yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mongodb::bson::oid::ObjectId;

use super::{
    beside::{ClaimRecord, Line, Window},
    bucket::{Bucket, NEVER},
    slot::{Slot, State},
};

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    pub(super) bucket: ObjectId,
    pub(super) offset: u32,
    pub(super) reading: i64,
    pub(super) sequence: i64,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    buckets: HashMap<ObjectId, Bucket>,
    /// By reading and first position.
    places: BTreeMap<(i64, i64), ObjectId>,
    /// Free messages without a key, by reading and position.
    ready: BTreeSet<(i64, i64)>,
    /// Free messages with a key, by reading and key.
    in_line: HashMap<(i64, String), BTreeSet<i64>>,
    /// By reading, when the time of a bucket comes.
    due: BTreeSet<(i64, i64, ObjectId)>,
    dues: HashMap<ObjectId, i64>,
    /// Buckets without messages that are still to be removed.
    empty: HashSet<ObjectId>,
    /// Buckets that were removed, though the database may still have them.
    pub(super) gone: HashSet<ObjectId>,
    pub(super) lines: BTreeMap<(i64, String), Option<Line>>,
    pub(super) claims: HashMap<(i64, [u8; 16]), Option<ClaimRecord>>,
    pub(super) windows: HashMap<String, Option<Window>>,
    pub(super) known: Known,
}

/// How much of the queue the shelf has.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By reading, up to which position all ready messages are here.
    pub(super) ready: HashMap<i64, i64>,
    /// By reading and key, up to which position all messages in line are here.
    pub(super) line: HashMap<(i64, String), i64>,
    /// By reading, up to which turn all open lines are here.
    pub(super) turns: HashMap<i64, i64>,
    /// By reading, up to which time all that is due is here.
    pub(super) due: HashMap<i64, i64>,
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        let beside = self.lines.len() + self.claims.len() + self.windows.len();
        self.buckets.len() + self.gone.len() + beside
    }

    pub(super) fn has(&self, bucket: ObjectId) -> bool {
        self.buckets.contains_key(&bucket) || self.gone.contains(&bucket)
    }

    pub(super) fn bucket(&self, bucket: ObjectId) -> Option<&Bucket> {
        self.buckets.get(&bucket)
    }

    /// For what changes no slot.
    pub(super) fn bucket_mut(&mut self, bucket: ObjectId) -> Option<&mut Bucket> {
        self.buckets.get_mut(&bucket)
    }

    /// Takes a bucket in, unless it is here already.
    pub(super) fn add(&mut self, bucket: Bucket) {
        if self.has(bucket.id) {
            return;
        }
        for (offset, slot) in &bucket.slots {
            self.note(bucket.reading, bucket.sequence(*offset), slot);
        }
        if bucket.slots.is_empty() {
            self.empty.insert(bucket.id);
        }
        self.places.insert((bucket.reading, bucket.first), bucket.id);
        self.set_due(&bucket);
        self.buckets.insert(bucket.id, bucket);
    }

    /// Buckets without messages.
    pub(super) fn empty(&self) -> impl Iterator<Item = ObjectId> {
        self.empty.iter().copied()
    }

    /// Lets go of a bucket that is removed.
    pub(super) fn let_go(&mut self, id: ObjectId) {
        self.empty.remove(&id);
        if let Some(bucket) = self.buckets.remove(&id) {
            self.places.remove(&(bucket.reading, bucket.first));
            if let Some(due) = self.dues.remove(&id) {
                self.due.remove(&(bucket.reading, due, id));
            }
            self.gone.insert(id);
        }
    }

    fn set_due(&mut self, bucket: &Bucket) {
        let due = bucket.due();
        if let Some(before) = self.dues.insert(bucket.id, due) {
            self.due.remove(&(bucket.reading, before, bucket.id));
        }
        self.due.insert((bucket.reading, due, bucket.id));
    }

    fn note(&mut self, reading: i64, sequence: i64, slot: &Slot) {
        match (slot.state, &slot.key) {
            (State::Ready, _) => drop(self.ready.insert((reading, sequence))),
            (State::InLine, Some(key)) => {
                self.in_line.entry((reading, key.clone())).or_default().insert(sequence);
            }
            _ => {}
        }
    }

    fn forget(&mut self, reading: i64, sequence: i64, slot: &Slot) {
        match (slot.state, &slot.key) {
            (State::Ready, _) => drop(self.ready.remove(&(reading, sequence))),
            (State::InLine, Some(key)) => {
                if let Some(line) = self.in_line.get_mut(&(reading, key.clone())) {
                    line.remove(&sequence);
                }
            }
            _ => {}
        }
    }

    /// Changes a message; answers it as it is then.
    pub(super) fn change(&mut self, at: Spot, change: impl FnOnce(&mut Slot)) -> Option<Slot> {
        let before = self.slot(at)?.clone();
        let slot = self.buckets.get_mut(&at.bucket)?.change(at.offset)?;
        change(slot);
        let after = slot.clone();
        self.forget(at.reading, at.sequence, &before);
        self.note(at.reading, at.sequence, &after);
        self.refresh_due(at.bucket);
        Some(after)
    }

    pub(super) fn remove(&mut self, at: Spot) -> Option<Slot> {
        let slot = self.buckets.get_mut(&at.bucket)?.remove(at.offset)?;
        self.forget(at.reading, at.sequence, &slot);
        self.refresh_due(at.bucket);
        if self.buckets.get(&at.bucket).is_some_and(|bucket| bucket.slots.is_empty()) {
            self.empty.insert(at.bucket);
        }
        Some(slot)
    }

    fn refresh_due(&mut self, id: ObjectId) {
        if let Some(bucket) = self.buckets.get(&id) {
            let (reading, due) = (bucket.reading, bucket.due());
            if let Some(before) = self.dues.insert(id, due) {
                self.due.remove(&(reading, before, id));
            }
            self.due.insert((reading, due, id));
        }
    }

    pub(super) fn slot(&self, at: Spot) -> Option<&Slot> {
        self.buckets.get(&at.bucket)?.slots.get(&at.offset)
    }

    /// Whether a bucket here spans a position.
    pub(super) fn spans(&self, reading: i64, sequence: i64) -> bool {
        self.spanning(reading, sequence).is_some()
    }

    fn spanning(&self, reading: i64, sequence: i64) -> Option<&Bucket> {
        let (_, id) = self.places.range((reading, i64::MIN)..=(reading, sequence)).next_back()?;
        self.buckets.get(id).filter(|bucket| bucket.offset(sequence).is_some())
    }

    /// The message in a position.
    pub(super) fn find(&self, reading: i64, sequence: i64) -> Option<Spot> {
        let bucket = self.spanning(reading, sequence)?;
        let offset = bucket.offset(sequence)?;
        bucket.slots.contains_key(&offset).then_some(Spot {
            bucket: bucket.id,
            offset,
            reading,
            sequence,
        })
    }

    /// The buckets of a reading that reach beyond a position, in order.
    pub(super) fn beyond(&self, reading: i64, after: i64) -> impl Iterator<Item = &Bucket> {
        // The last that starts before it may reach beyond.
        let start = self
            .places
            .range((reading, i64::MIN)..=(reading, after))
            .next_back()
            .map_or(i64::MIN, |((_, first), _)| *first);
        self.places
            .range((reading, start)..=(reading, i64::MAX))
            .filter_map(|(_, id)| self.buckets.get(id))
            .filter(move |bucket| bucket.last() > after)
    }

    /// The buckets of a reading that start at a position or before, the last first.
    pub(super) fn backward(&self, reading: i64) -> impl Iterator<Item = &Bucket> {
        let all = self.places.range((reading, i64::MIN)..=(reading, i64::MAX)).rev();
        all.filter_map(|(_, id)| self.buckets.get(id))
    }

    /// The first ready messages up to a position.
    pub(super) fn first_ready(&self, reading: i64, up_to: i64, limit: usize) -> Vec<Spot> {
        let range = self.ready.range((reading, i64::MIN)..=(reading, up_to)).take(limit);
        range.filter_map(|(_, sequence)| self.find(reading, *sequence)).collect()
    }

    /// The messages of a line that are here.
    pub(super) fn line(&self, reading: i64, key: &str) -> Option<&BTreeSet<i64>> {
        self.in_line.get(&(reading, key.to_owned()))
    }

    /// Buckets of a reading in which something is due.
    pub(super) fn due(&self, reading: i64, now: i64) -> Vec<ObjectId> {
        let range = self.due.range((reading, i64::MIN, ObjectId::from_bytes([0; 12]))..);
        let due = range.take_while(|(of, due, _)| *of == reading && *due <= now);
        due.map(|(_, _, id)| *id).collect()
    }

    /// When something of a reading is due, as far as is known here.
    pub(super) fn next_due(&self, reading: i64) -> i64 {
        let mut range = self.due.range((reading, i64::MIN, ObjectId::from_bytes([0; 12]))..);
        range.next().filter(|(of, ..)| *of == reading).map_or(NEVER, |(_, due, _)| *due)
    }
}
