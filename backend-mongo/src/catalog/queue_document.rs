//! The document of a queue, and its indexes.

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

pub(super) const QUEUES: &str = "catalog_queues";

const LIVE: &str = "live_queues";
const CHANGES: &str = "changes";
const DELETED: &str = "deleted";

/// How long a deleted queue stays in the change feed.
pub(super) const TOMBSTONE_TTL: Duration = Duration::from_hours(1);

pub(super) const INDEXES: &[Index] = &[
    // Covers a count. A deleted queue is not in it, so its name can be used again at once.
    Index {
        collection: QUEUES,
        name: LIVE,
        keys: || doc! { "project": 1, "live": 1, "name": 1 },
        options: || {
            let live = doc! { "live": true };
            IndexOptions::builder().unique(true).partial_filter_expression(live).build()
        },
    },
    // Covers a read of the change feed. A queue that was never changed is not in it.
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
        name: DELETED,
        keys: || doc! { "deleted_at": 1 },
        options: || IndexOptions::builder().expire_after(TOMBSTONE_TTL).build(),
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

/// One incarnation of a queue. An update or deletion also sets `changed` to the server's time, and
/// a deletion sets `deleted_at`, which only the server's TTL index reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueueDocument {
    /// The incarnation.
    #[serde(rename = "_id")]
    pub(super) id: i64,
    pub(super) project: String,
    pub(super) name: String,
    /// JSON text: field names of documents are restricted.
    pub(super) metadata: String,
    pub(super) version: i64,
    /// Milliseconds since 1970.
    pub(super) created_at: i64,
    pub(super) live: bool,
    /// Random tokens of the creation and of the last change. A call whose write was repeated
    /// recognizes its own by them.
    pub(super) creation_token: i64,
    pub(super) update_token: Option<i64>,
}

impl QueueDocument {
    pub(super) fn new(
        key: &QueueKey,
        metadata: &Metadata,
        now: Timestamp,
        creation_token: i64,
    ) -> Self {
        Self {
            id: Incarnation::generate(now).get(),
            project: key.project.as_str().to_owned(),
            name: key.name.as_str().to_owned(),
            metadata: metadata.to_json(),
            version: 1,
            created_at: now.as_millis(),
            live: true,
            creation_token,
            update_token: None,
        }
    }

    /// Returns the filter for the existing queue with this name.
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
