//! The stored form of a queue, and its indexes.

use std::time::Duration;

use mongodb::{
    bson::{Document, doc},
    options::{Hint, IndexOptions},
};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{Incarnation, Metadata, ProjectId, QueueKey, QueueRecord, QueueRef, Timestamp},
};

use crate::{error::unexpected, indexes::Index};

/// The collection.
pub(super) const QUEUES: &str = "catalog_queues";

const LIVE: &str = "live_queues";
const CHANGES: &str = "changes";
const GONE: &str = "gone";

/// How long the feed can tell that a queue was deleted.
pub(super) const GONE_KEPT: Duration = Duration::from_hours(1);

pub(super) const INDEXES: [Index; 3] = [
    // Covers a count. A queue that is gone is not in it, so its name is free at once.
    Index {
        collection: QUEUES,
        name: LIVE,
        keys: || doc! { "project": 1, "live": 1, "name": 1 },
        options: || {
            let live = doc! { "live": true };
            IndexOptions::builder().unique(true).partial_filter_expression(live).build()
        },
    },
    // Covers a read of the feed. A queue that was only created is not in it.
    Index {
        collection: QUEUES,
        name: CHANGES,
        keys: || doc! { "changed": 1, "project": 1, "name": 1 },
        options: || {
            let changed = doc! { "changed": { "$exists": true } };
            IndexOptions::builder().partial_filter_expression(changed).build()
        },
    },
    Index {
        collection: QUEUES,
        name: GONE,
        keys: || doc! { "gone_at": 1 },
        options: || IndexOptions::builder().expire_after(GONE_KEPT).build(),
    },
];

pub(super) fn by_id() -> Hint {
    Hint::Name("_id_".to_owned())
}

pub(super) fn by_name() -> Hint {
    Hint::Name(LIVE.to_owned())
}

pub(super) fn by_change() -> Hint {
    Hint::Name(CHANGES.to_owned())
}

/// One life of a queue. What changes it also sets `changed`, to the server's time, and what ends it
/// sets `gone_at`, which only the server reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Life {
    /// The incarnation.
    #[serde(rename = "_id")]
    pub(super) id: i64,
    pub(super) project: String,
    pub(super) name: String,
    /// JSON as text, since names in documents have rules of their own.
    pub(super) metadata: String,
    pub(super) version: i64,
    /// Milliseconds since 1970.
    pub(super) created_at: i64,
    pub(super) live: bool,
    /// Drawn by who created it, and by who changed it last: a call that is repeated finds out by
    /// it that it was carried out before.
    pub(super) birth: i64,
    pub(super) stamp: Option<i64>,
}

impl Life {
    pub(super) fn new(key: &QueueKey, metadata: &Metadata, now: Timestamp, birth: i64) -> Self {
        Self {
            id: Incarnation::generate(now).get(),
            project: key.project.as_str().to_owned(),
            name: key.name.as_str().to_owned(),
            metadata: metadata.to_json(),
            version: 1,
            created_at: now.as_millis(),
            live: true,
            birth,
            stamp: None,
        }
    }

    /// The queue with this name now.
    pub(super) fn filter(key: &QueueKey) -> Document {
        doc! { "project": key.project.as_str(), "live": true, "name": key.name.as_str() }
    }

    pub(super) fn queue(&self) -> Result<QueueRef> {
        let incarnation = Incarnation::new(self.id);
        Ok(QueueRef {
            key: read_key(&self.project, &self.name)?,
            incarnation: incarnation.ok_or_else(|| unexpected("an incarnation is not positive"))?,
        })
    }

    pub(super) fn record(&self) -> Result<QueueRecord> {
        Ok(QueueRecord {
            queue: self.queue()?,
            metadata: Metadata::from_json(&self.metadata).map_err(unexpected)?,
            version: self.version,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}

pub(super) fn read_key(project: &str, name: &str) -> Result<QueueKey> {
    Ok(QueueKey {
        project: ProjectId::from_store(project).map_err(unexpected)?,
        name: name.parse().map_err(unexpected)?,
    })
}
