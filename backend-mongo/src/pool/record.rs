//! The document of a queue: its counters, its readings, and the journal of what was committed but
//! may not have been carried out yet.

use std::collections::BTreeMap;

use mongodb::bson::{DateTime, Document, oid::ObjectId};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, Timestamp},
    support::SlidingMinuteCounter,
};

use super::bucket::Change;
use crate::error::unexpected;

/// How many milliseconds an entry of the journal is left to the one who committed it.
const STALE_AFTER: i64 = 30_000;

/// A queue that is open.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    #[serde(rename = "_id")]
    pub(super) id: i64,
    /// Raised by each commit but that of plain posts.
    pub(super) epoch: i64,
    /// Raised when readings come or go.
    pub(super) shape: i64,
    /// The last position that was given out.
    pub(super) tail: i64,
    /// By the reading's number in decimal digits; the first is the queue's own.
    pub(super) readings: BTreeMap<String, Reading>,
    /// The number of the last letters that came from each queue, by its number.
    #[serde(default)]
    pub(super) letters_from: BTreeMap<String, i64>,
    pub(super) journal: Vec<Entry>,
    /// Letters on their way to another queue.
    #[serde(default)]
    pub(super) leaving: Vec<Leaving>,
}

/// Who reads: the queue itself, a group, or the log of what is retained.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) ready: i64,
    pub(super) delayed: i64,
    #[serde(default)]
    pub(super) claimed: i64,
    #[serde(default)]
    pub(super) in_line: i64,
    /// Messages with an origin.
    #[serde(default)]
    pub(super) letters: i64,
    #[serde(default)]
    pub(super) lines: i64,
    #[serde(default)]
    pub(super) open_lines: i64,
    /// The last turn that was given.
    #[serde(default)]
    pub(super) turns: i64,
    /// The turn of the messages without a key.
    #[serde(default)]
    pub(super) plain_turn: i64,
    /// When the pace of redriving goes on.
    #[serde(default)]
    pub(super) next_redrive: i64,
    /// Messages that were handled: in which minute of the clock, in it, and in the one before.
    #[serde(default)]
    pub(super) handled: [i64; 3],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<GroupRecord>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_log: bool,
    /// What is still to be copied from the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fill: Option<Fill>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub(super) name: String,
    pub(super) settings: String,
    pub(super) created_at: i64,
}

/// What lies behind `after`, up to `up_to`, if it was posted at `since` or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fill {
    pub(super) after: i64,
    pub(super) up_to: i64,
    pub(super) since: i64,
    /// When it was asked for.
    pub(super) now: i64,
}

/// Letters that have left for another queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    /// The document that holds them.
    pub(super) parcel: ObjectId,
    pub(super) to: i64,
    /// Those that leave later for the same queue have a greater one.
    pub(super) number: i64,
    /// For whom they are.
    pub(super) for_whom: ForWhom,
    /// When they left.
    pub(super) now: i64,
}

/// Which readings of a queue get letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ForWhom {
    /// The queue and all its groups, and those that start later.
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

/// What one commit has to carry out. Everything in it may be done twice, and late.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// By which the one who commits it knows it again.
    pub(super) token: i64,
    /// The epoch that it began; what was changed later is left alone.
    pub(super) version: i64,
    /// The first of the positions that it gave out.
    #[serde(default, skip_serializing)]
    pub(super) first: i64,
    /// When it was committed, by the server's clock.
    #[serde(default, skip_serializing)]
    pub(super) at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) placed: Vec<Placed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<Change>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) emptied: Vec<ObjectId>,
    /// Documents beside the buckets that are replaced, by collection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) claims: Vec<Document>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) lines: Vec<Document>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) windows: Vec<Document>,
}

/// A bucket that gets its place in a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) bucket: ObjectId,
    pub(super) reading: i64,
    /// How far behind the first position of the commit, or where if it is `fixed`.
    pub(super) offset: i64,
    pub(super) span: i64,
    /// How many of its messages are delayed.
    #[serde(default)]
    pub(super) delayed: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) fixed: bool,
}

impl Entry {
    /// Whether it does no more than give buckets their places.
    pub(super) const fn is_post(&self) -> bool {
        self.changed.is_empty()
            && self.emptied.is_empty()
            && self.claims.is_empty()
            && self.lines.is_empty()
            && self.windows.is_empty()
    }
}

impl Placed {
    pub(super) const fn first(&self, entry: &Entry) -> i64 {
        if self.fixed { self.offset } else { entry.first + self.offset }
    }
}

impl Record {
    /// When the last entry was committed, by the server's clock.
    pub(super) fn newest(&self) -> Option<DateTime> {
        self.journal.iter().filter_map(|entry| entry.at).max()
    }

    /// Entries that were committed long before this: whoever did has gone, or has been told that it
    /// is not known what became of them.
    pub(super) fn stale(&self, time: DateTime) -> Vec<Entry> {
        let before = time.timestamp_millis() - STALE_AFTER;
        let is_stale = |entry: &&Entry| entry.at.is_some_and(|at| at.timestamp_millis() < before);
        self.journal.iter().filter(is_stale).cloned().collect()
    }

    pub(super) fn reading(&self, reading: i64) -> Option<&Reading> {
        self.readings.get(&reading.to_string())
    }

    pub(super) fn reading_mut(&mut self, reading: i64) -> Result<&mut Reading> {
        self.readings
            .get_mut(&reading.to_string())
            .ok_or_else(|| unexpected("a reading is missing"))
    }

    /// The readings that get what is posted: the queue's own and those of groups.
    pub(super) fn open_readings(&self) -> Vec<i64> {
        let open = self.readings.iter().filter(|(_, reading)| !reading.is_log);
        open.filter_map(|(number, _)| number.parse().ok()).collect()
    }

    pub(super) fn groups(&self) -> Vec<i64> {
        self.open_readings().into_iter().filter(|reading| *reading != self.id).collect()
    }

    pub(super) fn log(&self) -> Option<i64> {
        let log = self.readings.iter().find(|(_, reading)| reading.is_log);
        log.and_then(|(number, _)| number.parse().ok())
    }

    /// The reading of a group.
    pub(super) fn group(&self, name: &str) -> Option<i64> {
        let named =
            |reading: &Reading| reading.group.as_ref().is_some_and(|group| group.name == name);
        let found = self.readings.iter().find(|(_, reading)| named(reading));
        found.and_then(|(number, _)| number.parse().ok())
    }
}

impl Reading {
    pub(super) const fn next_turn(&mut self) -> i64 {
        self.turns += 1;
        self.turns
    }

    pub(super) fn recent(&self) -> SlidingMinuteCounter {
        let [minute, count, before] = self.handled;
        let count_of = |number| u64::try_from(number).unwrap_or(0);
        SlidingMinuteCounter { minute, count: count_of(count), previous: count_of(before) }
    }

    pub(super) fn handle(&mut self, count: usize, now: Timestamp) {
        let mut recent = self.recent();
        recent.add(count as u64, now);
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.handled = [recent.minute, number(recent.count), number(recent.previous)];
    }

    pub(super) const fn free(&self) -> i64 {
        self.ready + self.in_line + self.delayed
    }
}

impl GroupRecord {
    pub(super) fn new(name: &GroupName, settings: &Metadata, now: Timestamp) -> Self {
        Self {
            name: name.as_str().to_owned(),
            settings: settings.to_json(),
            created_at: now.as_millis(),
        }
    }

    pub(super) fn group(&self, queue: &QueueRef, reading: i64) -> Result<Group> {
        let incarnation =
            Incarnation::new(reading).ok_or_else(|| unexpected("a reading is not positive"))?;
        Ok(Group {
            name: self.name.parse().map_err(unexpected)?,
            as_queue: QueueRef { key: queue.key.clone(), incarnation },
            settings: Metadata::from_json(&self.settings).map_err(unexpected)?,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}
