//! How a unit of work loads documents into its cache.
//!
//! A document that is in the cache is never replaced by the stored one: earlier commits of this
//! node may not have been applied to that yet.

use std::collections::BTreeSet;

use mongodb::bson::{Document, RawDocumentBuf, deserialize_from_slice, doc, oid::ObjectId};
use serde::de::DeserializeOwned;
use storage_traits::{
    Result,
    domain::{ClaimId, Timestamp},
};

use super::{
    bucket::{Bucket, CAPACITY_SPAN, MessageLocation, NEVER},
    collections::Query,
    indexes::{
        BY_DEAD_LETTER, BY_DUE, BY_ID, BY_KEY, BY_POSITION, BY_READY, BY_ROTATION, BY_UNCLAIMED,
        CLAIMS, DEDUPLICATION, ORDERING_KEYS,
    },
    side_documents::{ClaimRecord, DedupRecord, KeyState},
    stored_message::{State, to_i64},
    unit_of_work::{MAX_UNIT_MESSAGES, UnitOfWork},
};
use crate::error::unexpected;

/// How many buckets, and how many ordering keys, one query loads.
const BUCKET_PAGE: usize = 16;
const KEY_PAGE: usize = 64;
/// Positions that are no farther apart than this are loaded by one query.
const MAX_GAP: i64 = 256;

/// The buckets that a walk through a group visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    All,
    /// Those with messages that are not claimed.
    Unclaimed,
    DeadLetters,
}

impl Scan {
    const fn field(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Unclaimed => Some("unclaimed"),
            Self::DeadLetters => Some("dead_letters"),
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::All => BY_POSITION,
            Self::Unclaimed => BY_UNCLAIMED,
            Self::DeadLetters => BY_DEAD_LETTER,
        }
    }
}

/// A bucket as the database has it, which may be older than in the cache.
struct Loaded {
    first: i64,
    last: i64,
    due: i64,
}

impl UnitOfWork<'_> {
    fn filter(&self, group_id: i64) -> Document {
        doc! { "queue_id": self.queue_id, "group_id": group_id }
    }

    /// Returns the last position whose messages can be read: before the first missing bucket.
    pub(super) fn readable_end(&self) -> i64 {
        let tail = self.base.as_ref().map_or(0, |document| document.tail);
        self.first_missing.map_or(tail, |missing| tail.min(missing - 1))
    }

    /// Loads buckets.
    async fn load(&mut self, query: Query) -> Result<Vec<Loaded>> {
        let tail = self.base.as_ref().map_or(0, |document| document.tail);
        let mut loaded = Vec::new();
        for stored in self.collections.load_buckets(query).await? {
            let bucket = stored.bucket;
            let (first, last, due) = (bucket.first, bucket.last(), bucket.next_transition());
            loaded.push(Loaded { first, last, due });
            // Messages posted since the queue was read are for the next unit of work.
            if stored.has_position && bucket.first <= tail {
                self.cache.add(bucket);
            }
        }
        Ok(loaded)
    }

    /// Loads the buckets of these positions.
    pub(super) async fn load_positions(&mut self, group_id: i64, sequences: &[i64]) -> Result<()> {
        let missing = sequences.iter().filter(|sequence| !self.cache.covers(group_id, **sequence));
        let missing: BTreeSet<i64> = missing.copied().collect();
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for sequence in missing {
            match ranges.last_mut() {
                Some((_, end)) if sequence - *end <= MAX_GAP => *end = sequence,
                _ => ranges.push((sequence, sequence)),
            }
        }
        let reach = CAPACITY_SPAN - 1;
        for (start, end) in ranges {
            let mut filter = self.filter(group_id);
            filter.insert("last", doc! { "$gte": start, "$lte": end.saturating_add(reach) });
            filter.insert("first", doc! { "$lte": end });
            self.load(Query { filter, sort: None, index: BY_POSITION, limit: 0 }).await?;
        }
        Ok(())
    }

    /// Returns up to `limit` of the first ready messages without an ordering key.
    pub(super) async fn first_ready(
        &mut self,
        group_id: i64,
        limit: usize,
    ) -> Result<Vec<MessageLocation>> {
        loop {
            let known = self.cache.loaded_up_to.ready.get(&group_id).copied().unwrap_or(0);
            let found = self.cache.first_ready(group_id, known, limit);
            let end = self.readable_end();
            if found.len() >= limit || known >= end {
                return Ok(found);
            }
            let mut filter = self.filter(group_id);
            filter.insert("ready", doc! { "$exists": true });
            filter.insert("last", doc! { "$gt": known });
            let sort = Some(doc! { "last": 1 });
            let query = Query { filter, sort, index: BY_READY, limit: BUCKET_PAGE };
            let loaded = self.load(query).await?;
            let full = loaded.len() == BUCKET_PAGE;
            let known = loaded.last().filter(|_| full).map_or(end, |bucket| bucket.last);
            self.cache.loaded_up_to.ready.insert(group_id, known.min(end));
        }
    }

    /// Returns up to `limit` of the first ready messages with an ordering key that has `ready` of
    /// them.
    pub(super) async fn first_keyed(
        &mut self,
        group_id: i64,
        key: &str,
        ready: i64,
        limit: usize,
    ) -> Result<Vec<MessageLocation>> {
        let of_group = (group_id, key.to_owned());
        loop {
            let known = self.cache.loaded_up_to.ready_keyed.get(&of_group).copied().unwrap_or(0);
            let cached = self.cache.ready_keyed(group_id, key);
            let is_complete = to_i64(cached.map_or(0, BTreeSet::len)) >= ready;
            let known = if is_complete { i64::MAX } else { known };
            let first = cached.into_iter().flatten().take_while(|sequence| **sequence <= known);
            let found: Vec<MessageLocation> =
                first.take(limit).filter_map(|it| self.cache.find(group_id, *it)).collect();
            if found.len() >= limit || known == i64::MAX {
                return Ok(found);
            }
            let mut filter = self.filter(group_id);
            filter.insert("keys", key);
            filter.insert("last", doc! { "$gt": known });
            let sort = Some(doc! { "last": 1 });
            let query = Query { filter, sort, index: BY_KEY, limit: BUCKET_PAGE };
            let loaded = self.load(query).await?;
            let full = loaded.len() == BUCKET_PAGE;
            let known = loaded.last().filter(|_| full).map_or(i64::MAX, |bucket| bucket.last);
            self.cache.loaded_up_to.ready_keyed.insert(of_group.clone(), known);
        }
    }

    /// Returns the buckets of a group in which a message is due.
    pub(super) async fn due_buckets(
        &mut self,
        group_id: i64,
        now: Timestamp,
    ) -> Result<Vec<ObjectId>> {
        loop {
            let known = self.cache.loaded_up_to.due.get(&group_id).copied().unwrap_or(i64::MIN);
            if known >= now.as_millis() {
                return Ok(self.cache.due(group_id, now.as_millis()));
            }
            // The page may reach beyond `now`: then the cache knows when the next message is due.
            let mut filter = self.filter(group_id);
            filter.insert("due", doc! { "$gt": known });
            let sort = Some(doc! { "due": 1 });
            let query = Query { filter, sort, index: BY_DUE, limit: BUCKET_PAGE };
            let loaded = self.load(query).await?;
            let full = loaded.len() == BUCKET_PAGE;
            // A full page may contain only some of the buckets with its last due time.
            let known = match loaded.last().filter(|_| full).map(|bucket| bucket.due) {
                None => NEVER,
                Some(due) if due - 1 > known => due - 1,
                Some(due) => {
                    self.load_due_at(group_id, due).await?;
                    due
                }
            };
            self.cache.loaded_up_to.due.insert(group_id, known);
            let due = self.cache.due(group_id, now.as_millis());
            if due.len() >= MAX_UNIT_MESSAGES {
                return Ok(due);
            }
        }
    }

    /// Loads all buckets that are due at one time.
    async fn load_due_at(&mut self, group_id: i64, due: i64) -> Result<()> {
        let mut filter = self.filter(group_id);
        filter.insert("due", due);
        self.load(Query { filter, sort: None, index: BY_DUE, limit: 0 }).await.map(drop)
    }

    /// Returns the state of an ordering key; an empty one if none is stored.
    pub(super) async fn key_state(&mut self, group_id: i64, key: &str) -> Result<KeyState> {
        let of_group = (group_id, key.to_owned());
        if !self.cache.keys.contains_key(&of_group) {
            let id = KeyState::document_id(group_id, key);
            let filter = doc! { "_id": id, "queue_id": self.queue_id };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.collections.find(ORDERING_KEYS, query).await?;
            let state = found.first().map(read).transpose()?;
            self.cache.keys.insert(of_group.clone(), state);
        }
        let state = self.cache.keys.get(&of_group).cloned().flatten();
        Ok(state.unwrap_or_else(|| KeyState::new(self.queue_id, group_id, key)))
    }

    pub(super) fn save_key(&mut self, state: KeyState) {
        self.dirty = true;
        let of_group = (state.group_id, state.key.clone());
        self.changed_keys.insert(of_group.clone());
        self.cache.keys.insert(of_group, Some(state));
    }

    /// Returns the available ordering key that is first in the round-robin order.
    pub(super) async fn next_available_key(&mut self, group_id: i64) -> Result<Option<KeyState>> {
        if self.group(group_id)?.available_keys == 0 {
            return Ok(None);
        }
        loop {
            let known =
                self.cache.loaded_up_to.rotations.get(&group_id).copied().unwrap_or(i64::MIN);
            let range = (group_id, String::new())..(group_id + 1, String::new());
            let keys = self.cache.keys.range(range).filter_map(|(_, state)| state.as_ref());
            let first = keys.filter(|key| key.rotation.is_some()).min_by_key(|key| key.rotation);
            match first {
                Some(key) if key.rotation.is_some_and(|rotation| rotation <= known) => {
                    return Ok(Some(key.clone()));
                }
                first if known == i64::MAX => return Ok(first.cloned()),
                _ => {}
            }
            let mut filter = self.filter(group_id);
            filter.insert("rotation", doc! { "$gt": known });
            let sort = Some(doc! { "rotation": 1 });
            let query = Query { filter, sort, index: BY_ROTATION, limit: KEY_PAGE };
            let found = self.collections.find(ORDERING_KEYS, query).await?;
            let mut last = i64::MAX;
            for raw in &found {
                let state: KeyState = read(raw)?;
                last = state.rotation.unwrap_or(i64::MAX);
                self.cache.keys.entry((group_id, state.key.clone())).or_insert(Some(state));
            }
            let known = if found.len() == KEY_PAGE { last } else { i64::MAX };
            self.cache.loaded_up_to.rotations.insert(group_id, known);
        }
    }

    /// Returns a claim, live or not.
    pub(super) async fn claim(
        &mut self,
        group_id: i64,
        id: ClaimId,
    ) -> Result<Option<ClaimRecord>> {
        let of_group = (group_id, id.to_bytes());
        if !self.cache.claims.contains_key(&of_group) {
            let id = ClaimRecord::document_id(group_id, id);
            let filter = doc! { "_id": id, "queue_id": self.queue_id };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.collections.find(CLAIMS, query).await?;
            let claim = found.first().map(read).transpose()?;
            self.cache.claims.insert(of_group, claim);
        }
        Ok(self.cache.claims.get(&of_group).cloned().flatten())
    }

    /// Returns the record of a deduplication id, whether or not its window has passed.
    pub(super) async fn dedup_record(&mut self, id: &str) -> Result<Option<DedupRecord>> {
        if !self.cache.dedup_records.contains_key(id) {
            let filter = doc! { "_id": id, "queue_id": self.queue_id };
            let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
            let found = self.collections.find(DEDUPLICATION, query).await?;
            let record = found.first().map(read).transpose()?;
            self.cache.dedup_records.insert(id.to_owned(), record);
        }
        Ok(self.cache.dedup_records.get(id).cloned().flatten())
    }

    /// Loads up to `limit` buckets that end after a position, in order. Returns the position up to
    /// which the cache is complete.
    pub(super) async fn load_after(
        &mut self,
        group_id: i64,
        after: i64,
        scan: Scan,
        limit: usize,
    ) -> Result<i64> {
        let mut filter = self.filter(group_id);
        filter.insert("last", doc! { "$gt": after });
        if let Some(field) = scan.field() {
            filter.insert(field, doc! { "$exists": true });
        }
        let sort = Some(doc! { "last": 1 });
        let loaded = self.load(Query { filter, sort, index: scan.index(), limit }).await?;
        let full = loaded.len() == limit;
        Ok(loaded.last().filter(|_| full).map_or(i64::MAX, |bucket| bucket.last))
    }

    /// Loads the last buckets that end before a position. Returns the position from which on the
    /// cache is complete.
    pub(super) async fn load_before(&mut self, group_id: i64, before: i64) -> Result<i64> {
        const LIMIT: usize = 4;
        let mut filter = self.filter(group_id);
        filter.insert("last", doc! { "$lt": before });
        let sort = Some(doc! { "last": -1 });
        let loaded = self.load(Query { filter, sort, index: BY_POSITION, limit: LIMIT }).await?;
        let full = loaded.len() == LIMIT;
        Ok(loaded.last().filter(|_| full).map_or(i64::MIN, |bucket| bucket.first))
    }

    /// Reads buckets by id, whether or not they have their positions. Does not add them to the
    /// cache.
    pub(super) async fn read_by_id(&mut self, ids: &[ObjectId]) -> Result<Vec<Bucket>> {
        let filter = doc! { "_id": { "$in": ids }, "queue_id": self.queue_id };
        let query = Query { filter, sort: None, index: BY_ID, limit: 0 };
        let stored = self.collections.load_buckets(query).await?;
        Ok(stored.into_iter().map(|stored| stored.bucket).collect())
    }

    /// Returns the unexpired messages in these positions, whatever their state.
    pub(super) async fn find(
        &mut self,
        group_id: i64,
        sequences: &[i64],
        now: Timestamp,
    ) -> Result<Vec<MessageLocation>> {
        self.load_positions(group_id, sequences).await?;
        let found = sequences.iter().filter_map(|sequence| self.cache.find(group_id, *sequence));
        let exists = |at: &MessageLocation| {
            self.cache
                .stored(*at)
                .is_some_and(|message| !message.is_expired(now) && message.state != State::Retained)
        };
        Ok(found.filter(exists).collect())
    }
}

fn read<T: DeserializeOwned>(raw: &RawDocumentBuf) -> Result<T> {
    deserialize_from_slice(raw.as_bytes()).map_err(unexpected)
}
