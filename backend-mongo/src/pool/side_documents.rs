//! Documents beside the buckets: claims, ordering keys and deduplication records.
//!
//! Each is found by its id or by one index. Only the server deletes them, through a TTL index, long
//! after they have become meaningless.

use std::time::Duration;

use mongodb::bson::{Binary, DateTime, Document, doc, serialize_to_document, spec::BinarySubtype};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{ClaimId, Timestamp},
};

use crate::error::unexpected;

/// How long a meaningless document is kept at least: longer than a command that was sent can be
/// delayed on its way to the server.
const GARBAGE_TTL: Duration = Duration::from_hours(1);

/// Returns when the server may delete a document that is meaningless from `time` on.
pub(super) fn ttl_after(time: i64) -> DateTime {
    DateTime::from_millis(Timestamp::from_millis(time).plus(GARBAGE_TTL).as_millis())
}

/// A claim, and the positions of the messages that it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimRecord {
    #[serde(rename = "_id")]
    pub(super) id: Binary,
    pub(super) queue_id: i64,
    pub(super) renewed_at: i64,
    /// Seconds.
    pub(super) ttl: i64,
    pub(super) expires_at: i64,
    pub(super) sequences: Vec<i64>,
    pub(super) applied_revision: i64,
    pub(super) garbage_at: DateTime,
}

impl ClaimRecord {
    /// Returns the id of its document: the group, then the claim, since claims of two queues may
    /// have the same id.
    pub(super) fn document_id(group_id: i64, claim: ClaimId) -> Binary {
        let bytes = [&group_id.to_be_bytes()[..], &claim.to_bytes()].concat();
        Binary { subtype: BinarySubtype::Generic, bytes }
    }

    pub(super) const fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at > now.as_millis()
    }

    /// Returns the fields that a renewal or a release sets.
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

/// The state of an ordering key in a group. The key is available while it has ready messages and
/// none in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyState {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) queue_id: i64,
    pub(super) group_id: i64,
    pub(super) key: String,
    /// Messages that are ready.
    pub(super) ready: i64,
    /// Messages that are claimed or wait for a retry.
    pub(super) in_flight: i64,
    /// The place in the round-robin order; set while the key is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rotation: Option<i64>,
    /// Set while the key has no messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) garbage_at: Option<DateTime>,
}

impl KeyState {
    /// Returns the id of its document.
    pub(super) fn document_id(group_id: i64, key: &str) -> String {
        format!("{group_id}:{key}")
    }

    pub(super) fn new(queue_id: i64, group_id: i64, key: &str) -> Self {
        Self {
            id: Self::document_id(group_id, key),
            queue_id,
            group_id,
            key: key.to_owned(),
            ready: 0,
            in_flight: 0,
            rotation: None,
            garbage_at: None,
        }
    }

    pub(super) fn document(&self) -> Result<Document> {
        serialize_to_document(self).map_err(unexpected)
    }
}

/// A deduplication id, and the message that was stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DedupRecord {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) queue_id: i64,
    pub(super) sequence: i64,
    pub(super) expires_at: i64,
    pub(super) garbage_at: DateTime,
}

impl DedupRecord {
    /// Returns the id of its document.
    pub(super) fn document_id(queue_id: i64, id: &str) -> String {
        format!("{queue_id}:{id}")
    }
}
