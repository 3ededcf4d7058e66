//! A step: several operations on one queue that are committed together, worked out in memory.
//!
//! What it needs it loads onto the [`Shelf`]; what it changes is written down in the [`Entry`] that
//! the commit adds to the queue's journal.

use std::collections::{BTreeSet, HashMap, HashSet};

use mongodb::bson::{Document, RawDocumentBuf, doc, oid::ObjectId};
use serde::de::DeserializeOwned;
use storage_traits::{
    Result,
    domain::{Incarnation, Message, MessageId, Timestamp},
    pool::EventCounts,
};

use super::{
    beside::{ClaimRecord, Line, Window},
    body::placeholder,
    bucket::{Bucket, CAPACITY_SPAN, NEVER},
    record::Record,
    shelf::{Shelf, Spot},
    slot::{Slot, State, number},
    stores::{BY_DUE, BY_ID, BY_KEY, BY_PLACE, BY_READY, CLAIMS, LINES, Query, Stores, WINDOWS},
};
use crate::error::unexpected;

/// How many messages one step settles, moves or purges at the most.
pub(super) const STEP: usize = 256;
/// How many buckets, or lines, are loaded at a time.
const LOADED: usize = 16;
const LOADED_LINES: usize = 64;
/// Positions that lie no farther apart are looked for together.
const NEAR: i64 = 256;

/// What one of several bounded steps came to.
pub(super) enum Progress<T> {
    Done(T),
    Again,
}

/// A bucket that the step makes.
pub(super) struct NewBucket {
    pub(super) bucket: Bucket,
    pub(super) bodies: Vec<Vec<u8>>,
    /// Whether its place is known already, since it mirrors that of another.
    pub(super) fixed: bool,
}

pub(super) struct Step<'l> {
    pub(super) stores: Stores,
    pub(super) home: i64,
    /// The queue as it was when the step began; `None` if it is unknown.
    pub(super) base: Option<Record>,
    /// The queue as the step leaves it.
    pub(super) record: Option<Record>,
    pub(super) shelf: &'l mut Shelf,
    /// Positions that were given out, but whose messages are not to be found.
    pub(super) hole: Option<i64>,
    pub(super) new: Vec<NewBucket>,
    pub(super) claims: Vec<ClaimRecord>,
    pub(super) changed_claims: Vec<ClaimRecord>,
    pub(super) lines: BTreeSet<(i64, String)>,
    pub(super) windows: BTreeSet<String>,
    /// Letters that leave.
    pub(super) parcels: Vec<Document>,
    /// Readings that end.
    pub(super) ended: Vec<i64>,
    pub(super) wanted: Vec<(ObjectId, u32)>,
    pub(super) changed: HashSet<ObjectId>,
    pub(super) dirty: bool,
    /// Whether it removes messages whose bodies are wanted: those are read first.
    pub(super) takes_off: bool,
    /// How many messages were changed.
    pub(super) touched: usize,
    /// Readings that got messages.
    pub(super) posted: BTreeSet<i64>,
    /// By reading, how much more can be claimed.
    pub(super) freed: HashMap<i64, usize>,
    /// By reading, when something is due.
    pub(super) dues: HashMap<i64, i64>,
    pub(super) tally: EventCounts,
}

impl<'l> Step<'l> {
    pub(super) fn new(
        stores: &Stores,
        home: i64,
        record: Option<Record>,
        shelf: &'l mut Shelf,
        gap: Option<i64>,
    ) -> Self {
        Self {
            stores: stores.clone(),
            home,
            base: record.clone(),
            record,
            shelf,
            hole: gap,
            new: Vec::new(),
            claims: Vec::new(),
            changed_claims: Vec::new(),
            lines: BTreeSet::new(),
            windows: BTreeSet::new(),
            parcels: Vec::new(),
            ended: Vec::new(),
            wanted: Vec::new(),
            changed: HashSet::new(),
            dirty: false,
            takes_off: false,
            touched: 0,
            posted: BTreeSet::new(),
            freed: HashMap::new(),
            dues: HashMap::new(),
            tally: EventCounts::default(),
        }
    }

    /// How many positions it gives out.
    pub(super) fn given_out(&self) -> i64 {
        let tail = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.tail);
        tail(&self.record) - tail(&self.base)
    }

    /// Whether the queue is known, and has this reading.
    pub(super) fn knows(&self, reading: i64) -> bool {
        self.record.as_ref().is_some_and(|record| record.reading(reading).is_some())
    }

    pub(super) fn record(&mut self) -> Result<&mut Record> {
        self.record.as_mut().ok_or_else(|| unexpected("a step went on without its queue"))
    }

    pub(super) fn reading(&mut self, reading: i64) -> Result<&mut super::record::Reading> {
        self.record()?.reading_mut(reading)
    }

    pub(super) fn ids(&self) -> Result<Incarnation> {
        Incarnation::new(self.home).ok_or_else(|| unexpected("a queue's number is not positive"))
    }

    /// The positions among `ids` that are of this queue, in this life.
    pub(super) fn own(&self, ids: &[MessageId]) -> Vec<i64> {
        let own = ids.iter().filter(|id| id.incarnation.get() == self.home);
        own.map(|id| id.sequence.get()).collect()
    }

    /// More of a reading can be claimed.
    pub(super) fn note_freed(&mut self, reading: i64, count: usize) {
        *self.freed.entry(reading).or_default() += count;
    }

    /// Something of a reading is due at this time.
    pub(super) fn note_due(&mut self, reading: i64, due: i64) {
        let earliest = self.dues.entry(reading).or_insert(NEVER);
        *earliest = due.min(*earliest);
    }

    pub(super) fn slot(&self, at: Spot) -> Result<&Slot> {
        self.shelf.slot(at).ok_or_else(|| unexpected("a message is missing"))
    }

    /// Changes a message; answers it as it is then.
    pub(super) fn change(&mut self, at: Spot, change: impl FnOnce(&mut Slot)) -> Result<Slot> {
        self.dirty = true;
        self.touched += 1;
        self.changed.insert(at.bucket);
        self.shelf.change(at, change).ok_or_else(|| unexpected("a message is missing"))
    }

    /// Removes a message from its bucket.
    pub(super) fn erase(&mut self, at: Spot) -> Result<Slot> {
        self.dirty = true;
        self.touched += 1;
        self.changed.insert(at.bucket);
        self.shelf.remove(at).ok_or_else(|| unexpected("a message is missing"))
    }

    /// The message in a at; its body is read when the step is over.
    pub(super) fn message(&mut self, at: Spot) -> Result<Message> {
        self.wanted.push((at.bucket, at.offset));
        let body = placeholder(self.wanted.len() - 1);
        let ids = self.ids()?;
        self.slot(at)?.message(ids, at.sequence, body)
    }

    fn filter(&self, reading: i64) -> Document {
        doc! { "home": self.home, "reading": reading }
    }

    /// Loads buckets; answers of each where it starts, where it ends and when it is due, as the
    /// database has it.
    async fn load(&mut self, query: Query) -> Result<Vec<(i64, i64, i64, ObjectId)>> {
        let tail = self.base.as_ref().map_or(0, |record| record.tail);
        let mut loaded = Vec::new();
        for stored in self.stores.buckets(query).await? {
            let bucket = stored.bucket;
            loaded.push((bucket.first, bucket.last(), bucket.due(), bucket.id));
            // What was posted since the queue was read is for the next step.
            if stored.placed && bucket.first <= tail {
                self.shelf.add(bucket);
            }
        }
        Ok(loaded)
    }

    /// Loads the buckets of these positions.
    pub(super) async fn load_positions(&mut self, reading: i64, sequences: &[i64]) -> Result<()> {
        let missing = sequences.iter().filter(|sequence| !self.shelf.spans(reading, **sequence));
        let missing: BTreeSet<i64> = missing.copied().collect();
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for sequence in missing {
            match ranges.last_mut() {
                Some((_, end)) if sequence - *end <= NEAR => *end = sequence,
                _ => ranges.push((sequence, sequence)),
            }
        }
        let reach = CAPACITY_SPAN - 1;
        for (start, end) in ranges {
            let mut filter = self.filter(reading);
            filter.insert("last", doc! { "$gte": start, "$lte": end.saturating_add(reach) });
            filter.insert("first", doc! { "$lte": end });
            self.load(Query { filter, sort: None, index: BY_PLACE, limit: 0 }).await?;
        }
        Ok(())
    }

    /// Up to `limit` of the first ready messages of a reading.
    pub(super) async fn first_ready(&mut self, reading: i64, limit: usize) -> Result<Vec<Spot>> {
        loop {
            let known = self.shelf.known.ready.get(&reading).copied().unwrap_or(0);
            let found = self.shelf.first_ready(reading, known, limit);
            let tail = self.base.as_ref().map_or(0, |record| record.tail);
            let end = self.hole.map_or(tail, |hole| tail.min(hole - 1));
            if found.len() >= limit || known >= end {
                return Ok(found);
            }
            let mut filter = self.filter(reading);
            filter.insert("ready", doc! { "$exists": true });
            filter.insert("last", doc! { "$gt": known });
            let sort = Some(doc! { "last": 1 });
            let loaded = self.load(Query { filter, sort, index: BY_READY, limit: LOADED }).await?;
            let full = loaded.len() == LOADED;
            let known = loaded.last().filter(|_| full).map_or(end, |(_, last, ..)| *last);
            self.shelf.known.ready.insert(reading, known.min(end));
        }
    }

    /// Up to `limit` of the first messages in a line in which so many wait.
    pub(super) async fn first_in_line(
        &mut self,
        reading: i64,
        key: &str,
        waiting: i64,
        limit: usize,
    ) -> Result<Vec<Spot>> {
        let place = (reading, key.to_owned());
        loop {
            let known = self.shelf.known.line.get(&place).copied().unwrap_or(0);
            let here = self.shelf.line(reading, key);
            let all = number(here.map_or(0, BTreeSet::len)) >= waiting;
            let known = if all { i64::MAX } else { known };
            let first = here.into_iter().flatten().take_while(|sequence| **sequence <= known);
            let found: Vec<Spot> =
                first.take(limit).filter_map(|it| self.shelf.find(reading, *it)).collect();
            if found.len() >= limit || known == i64::MAX {
                return Ok(found);
            }
            let mut filter = self.filter(reading);
            filter.insert("keys", key);
            filter.insert("last", doc! { "$gt": known });
            let sort = Some(doc! { "last": 1 });
            let loaded = self.load(Query { filter, sort, index: BY_KEY, limit: LOADED }).await?;
            let full = loaded.len() == LOADED;
            let known = loaded.last().filter(|_| full).map_or(i64::MAX, |(_, last, ..)| *last);
            self.shelf.known.line.insert(place.clone(), known);
        }
    }

    /// The buckets of a reading in which something is due.
    pub(super) async fn due(&mut self, reading: i64, now: Timestamp) -> Result<Vec<ObjectId>> {
        loop {
            let known = self.shelf.known.due.get(&reading).copied().unwrap_or(i64::MIN);
            if known >= now.as_millis() {
                return Ok(self.shelf.due(reading, now.as_millis()));
            }
            // A little more than is due, so as to know when to look again.
            let mut filter = self.filter(reading);
            filter.insert("due", doc! { "$gt": known });
            let sort = Some(doc! { "due": 1 });
            let loaded = self.load(Query { filter, sort, index: BY_DUE, limit: LOADED }).await?;
            let full = loaded.len() == LOADED;
            // Of those with the same due only some may have come.
            let known = match loaded.last().filter(|_| full) {
                None => NEVER,
                Some((_, _, due, _)) if due - 1 > known => due - 1,
                Some((_, _, due, _)) => {
                    let due = *due;
                    self.load_all_due(reading, due).await?;
                    due
                }
            };
            self.shelf.known.due.insert(reading, known);
            let due = self.shelf.due(reading, now.as_millis());
            if due.len() >= STEP {
                return Ok(due);
            }
        }
    }

    /// Loads everything that is due at one moment.
    async fn load_all_due(&mut self, reading: i64, due: i64) -> Result<()> {
        let mut filter = self.filter(reading);
        filter.insert("due", due);
        self.load(Query { filter, sort: None, index: BY_DUE, limit: 0 }).await.map(drop)
    }

    /// A line as it is; an empty one if there is none.
    pub(super) async fn line(&mut self, reading: i64, key: &str) -> Result<Line> {
        let place = (reading, key.to_owned());
        if !self.shelf.lines.contains_key(&place) {
            let filter = doc! { "_id": Line::name(reading, key), "home": self.home };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.stores.find(LINES, query).await?;
            let line = found.first().map(read).transpose()?;
            self.shelf.lines.insert(place.clone(), line);
        }
        let line = self.shelf.lines.get(&place).cloned().flatten();
        Ok(line.unwrap_or_else(|| Line::new(self.home, reading, key)))
    }

    pub(super) fn put_line(&mut self, line: Line) {
        self.dirty = true;
        let place = (line.reading, line.key.clone());
        self.lines.insert(place.clone());
        self.shelf.lines.insert(place, Some(line));
    }

    /// The open line whose turn it is.
    pub(super) async fn first_open(&mut self, reading: i64) -> Result<Option<Line>> {
        if self.reading(reading)?.open_lines == 0 {
            return Ok(None);
        }
        loop {
            let known = self.shelf.known.turns.get(&reading).copied().unwrap_or(i64::MIN);
            let range = (reading, String::new())..(reading + 1, String::new());
            let open = self.shelf.lines.range(range).filter_map(|(_, line)| line.as_ref());
            let first = open.filter(|line| line.turn.is_some()).min_by_key(|line| line.turn);
            match first {
                Some(line) if line.turn.is_some_and(|turn| turn <= known) => {
                    return Ok(Some(line.clone()));
                }
                first if known == i64::MAX => return Ok(first.cloned()),
                _ => {}
            }
            let mut filter = self.filter(reading);
            filter.insert("turn", doc! { "$gt": known });
            let query = Query {
                filter,
                sort: Some(doc! { "turn": 1 }),
                index: super::stores::BY_TURN,
                limit: LOADED_LINES,
            };
            let found = self.stores.find(LINES, query).await?;
            let mut last = i64::MAX;
            for raw in &found {
                let line: Line = read(raw)?;
                last = line.turn.unwrap_or(i64::MAX);
                self.shelf.lines.entry((reading, line.key.clone())).or_insert(Some(line));
            }
            let known = if found.len() == LOADED_LINES { last } else { i64::MAX };
            self.shelf.known.turns.insert(reading, known);
        }
    }

    /// A claim, alive or not.
    pub(super) async fn claim(
        &mut self,
        reading: i64,
        id: storage_traits::domain::ClaimId,
    ) -> Result<Option<ClaimRecord>> {
        let place = (reading, id.to_bytes());
        if !self.shelf.claims.contains_key(&place) {
            let filter = doc! { "_id": ClaimRecord::name(reading, id), "home": self.home };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.stores.find(CLAIMS, query).await?;
            let claim = found.first().map(read).transpose()?;
            self.shelf.claims.insert(place, claim);
        }
        Ok(self.shelf.claims.get(&place).cloned().flatten())
    }

    /// The window of a deduplication id, open or not.
    pub(super) async fn window(&mut self, name: &str) -> Result<Option<Window>> {
        if !self.shelf.windows.contains_key(name) {
            let filter = doc! { "_id": name, "home": self.home };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.stores.find(WINDOWS, query).await?;
            let window = found.first().map(read).transpose()?;
            self.shelf.windows.insert(name.to_owned(), window);
        }
        Ok(self.shelf.windows.get(name).cloned().flatten())
    }

    /// Loads some buckets that reach beyond a position, by an index over positions; answers how far
    /// all of them are here.
    pub(super) async fn load_beyond(
        &mut self,
        reading: i64,
        after: i64,
        scan: Scan,
        limit: usize,
    ) -> Result<i64> {
        let mut filter = self.filter(reading);
        filter.insert("last", doc! { "$gt": after });
        if let Some(field) = scan.field() {
            filter.insert(field, doc! { "$exists": true });
        }
        let sort = Some(doc! { "last": 1 });
        let loaded = self.load(Query { filter, sort, index: scan.index(), limit }).await?;
        let full = loaded.len() == limit;
        Ok(loaded.last().filter(|_| full).map_or(i64::MAX, |(_, last, ..)| *last))
    }

    /// Loads the last buckets that start before a position; answers from where on all are here.
    pub(super) async fn load_last(&mut self, reading: i64, before: i64) -> Result<i64> {
        let mut filter = self.filter(reading);
        filter.insert("last", doc! { "$lt": before });
        let sort = Some(doc! { "last": -1 });
        let query = Query { filter, sort, index: BY_PLACE, limit: 4 };
        let loaded = self.load(query).await?;
        Ok(loaded.last().filter(|_| loaded.len() == 4).map_or(i64::MIN, |(first, ..)| *first))
    }

    /// Loads buckets by name, as they are placed by the journal.
    pub(super) async fn load_named(&mut self, named: &[ObjectId]) -> Result<Vec<Bucket>> {
        let filter = doc! { "_id": { "$in": named }, "home": self.home };
        let query = Query { filter, sort: None, index: BY_ID, limit: 0 };
        let stored = self.stores.buckets(query).await?;
        Ok(stored.into_iter().map(|stored| stored.bucket).collect())
    }

    /// Finds messages by position, whatever their state, but those that are over.
    pub(super) async fn find(
        &mut self,
        reading: i64,
        sequences: &[i64],
        now: Timestamp,
    ) -> Result<Vec<Spot>> {
        self.load_positions(reading, sequences).await?;
        let spots = sequences.iter().filter_map(|sequence| self.shelf.find(reading, *sequence));
        let lives = |at: &Spot| {
            self.shelf
                .slot(*at)
                .is_some_and(|slot| !slot.is_over(now) && slot.state != State::Retained)
        };
        Ok(spots.filter(lives).collect())
    }
}

/// Which buckets to walk through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// All.
    All,
    /// Those with messages that are not claimed.
    Unclaimed,
    /// Those with dead letters.
    Letters,
}

impl Scan {
    const fn field(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Unclaimed => Some("unclaimed"),
            Self::Letters => Some("letters"),
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::All => BY_PLACE,
            Self::Unclaimed => super::stores::BY_UNCLAIMED,
            Self::Letters => super::stores::BY_LETTER,
        }
    }
}

fn read<T: DeserializeOwned>(raw: &RawDocumentBuf) -> Result<T> {
    mongodb::bson::deserialize_from_slice(raw.as_bytes()).map_err(unexpected)
}
