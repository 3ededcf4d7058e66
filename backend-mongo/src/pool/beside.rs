//! What lies beside the buckets: claims, lines, and windows of deduplication. Each is a document
//! that is found by its name alone, or by one index; it is never deleted but by the server, as
//! garbage, long after it has come to mean nothing.

use std::time::Duration;

use mongodb::bson::{Binary, DateTime, Document, doc, serialize_to_document, spec::BinarySubtype};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{ClaimId, Timestamp},
};

use crate::error::unexpected;

/// How long garbage is kept, at the least: longer than any command that was sent may take to come.
const KEPT: Duration = Duration::from_hours(1);

/// When the server may collect what means nothing from `moment` on.
pub(super) fn garbage_after(moment: i64) -> DateTime {
    DateTime::from_millis(Timestamp::from_millis(moment).plus(KEPT).as_millis())
}

/// A claim, and which messages it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimRecord {
    #[serde(rename = "_id")]
    pub(super) id: Binary,
    pub(super) home: i64,
    pub(super) renewed_at: i64,
    /// Seconds.
    pub(super) ttl: i64,
    pub(super) expires_at: i64,
    pub(super) sequences: Vec<i64>,
    pub(super) version: i64,
    pub(super) garbage_at: DateTime,
}

impl ClaimRecord {
    /// Its name: the reading, then the claim, since claims of two queues may have the same id.
    pub(super) fn name(reading: i64, claim: ClaimId) -> Binary {
        let bytes = [&reading.to_be_bytes()[..], &claim.to_bytes()].concat();
        Binary { subtype: BinarySubtype::Generic, bytes }
    }

    pub(super) const fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at > now.as_millis()
    }

    /// What a change of it sets.
    pub(super) fn change(&self) -> Document {
        doc! {
            "_id": self.id.clone(),
            "renewed_at": self.renewed_at,
            "ttl": self.ttl,
            "expires_at": self.expires_at,
            "garbage_at": self.garbage_at,
        }
    }
}

/// The messages with one ordering key: open while something waits in it and nothing of it is busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) home: i64,
    pub(super) reading: i64,
    pub(super) key: String,
    /// Messages in line.
    pub(super) waiting: i64,
    /// Messages that are claimed or wait for a retry.
    pub(super) busy: i64,
    /// Set while it is open; claims go by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) turn: Option<i64>,
    /// Set while it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) garbage_at: Option<DateTime>,
}

impl Line {
    pub(super) fn name(reading: i64, key: &str) -> String {
        format!("{reading}:{key}")
    }

    pub(super) fn new(home: i64, reading: i64, key: &str) -> Self {
        Self {
            id: Self::name(reading, key),
            home,
            reading,
            key: key.to_owned(),
            waiting: 0,
            busy: 0,
            turn: None,
            garbage_at: None,
        }
    }

    pub(super) fn document(&self) -> Result<Document> {
        serialize_to_document(self).map_err(unexpected)
    }
}

/// A deduplication id, and the message that was stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) home: i64,
    pub(super) sequence: i64,
    pub(super) expires_at: i64,
    pub(super) garbage_at: DateTime,
}

impl Window {
    pub(super) fn name(home: i64, id: &str) -> String {
        format!("{home}:{id}")
    }
}
