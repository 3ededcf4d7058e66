//! The names of the collections, and their indexes. Every query names one of these indexes.

use mongodb::{
    bson::{Document, doc},
    options::{Hint, IndexOptions},
};

use crate::indexes::Index;

pub(super) const QUEUES: &str = "pool_queues";
pub(super) const BUCKETS: &str = "pool_buckets";
pub(super) const CLAIMS: &str = "pool_claims";
pub(super) const ORDERING_KEYS: &str = "pool_ordering_keys";
pub(super) const DEDUPLICATION: &str = "pool_deduplication";
pub(super) const TRANSFERS: &str = "pool_transfers";
pub(super) const GARBAGE: &str = "pool_garbage";

/// The index that the server creates in each collection.
pub(super) const BY_ID: &str = "_id_";
pub(super) const BY_GROUP: &str = "group";
pub(super) const BY_POSITION: &str = "position";
pub(super) const BY_READY: &str = "ready";
pub(super) const BY_UNCLAIMED: &str = "unclaimed";
/// What is due in one group.
pub(super) const BY_DUE: &str = "due";
/// What is due in any queue.
pub(super) const BY_TIME: &str = "time";
pub(super) const BY_KEY: &str = "key";
pub(super) const BY_DEAD_LETTER: &str = "dead_letter";
pub(super) const BY_ROTATION: &str = "rotation";

/// All indexes that the pool creates.
pub(super) const INDEXES: &[Index] = &[
    Index {
        collection: QUEUES,
        name: BY_GROUP,
        keys: || doc! { "group_ids": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: BUCKETS,
        name: BY_POSITION,
        keys: || doc! { "queue_id": 1, "group_id": 1, "last": 1, "first": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: BUCKETS,
        name: BY_READY,
        keys: || doc! { "queue_id": 1, "group_id": 1, "last": 1 },
        options: || with_field("ready"),
    },
    Index {
        collection: BUCKETS,
        name: BY_UNCLAIMED,
        keys: || doc! { "queue_id": 1, "group_id": 1, "last": 1, "free": 1 },
        options: || with_field("unclaimed"),
    },
    Index {
        collection: BUCKETS,
        name: BY_DUE,
        keys: || doc! { "queue_id": 1, "group_id": 1, "due": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: BUCKETS,
        name: BY_TIME,
        keys: || doc! { "due": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: BUCKETS,
        name: BY_KEY,
        keys: || doc! { "queue_id": 1, "group_id": 1, "keys": 1, "last": 1 },
        options: || with_field("keys"),
    },
    Index {
        collection: BUCKETS,
        name: BY_DEAD_LETTER,
        keys: || doc! { "queue_id": 1, "group_id": 1, "last": 1, "dead_letters": 1 },
        options: || with_field("dead_letters"),
    },
    Index {
        collection: ORDERING_KEYS,
        name: BY_ROTATION,
        keys: || doc! { "queue_id": 1, "group_id": 1, "rotation": 1 },
        options: IndexOptions::default,
    },
    Index { collection: ORDERING_KEYS, name: "garbage", keys: garbage, options: ttl },
    Index { collection: CLAIMS, name: "garbage", keys: garbage, options: ttl },
    Index { collection: DEDUPLICATION, name: "garbage", keys: garbage, options: ttl },
    Index {
        collection: TRANSFERS,
        name: BY_TIME,
        keys: || doc! { "due": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: GARBAGE,
        name: BY_TIME,
        keys: || doc! { "due": 1 },
        options: IndexOptions::default,
    },
];

/// Restricts an index to the documents with this field.
fn with_field(field: &str) -> IndexOptions {
    let filter = doc! { field: { "$exists": true } };
    IndexOptions::builder().partial_filter_expression(filter).build()
}

fn garbage() -> Document {
    doc! { "garbage_at": 1 }
}

/// Lets the server delete a document at the time in the indexed field.
fn ttl() -> IndexOptions {
    IndexOptions::builder().expire_after(std::time::Duration::ZERO).build()
}

/// Names an index in a query.
pub(super) fn hint(index: &str) -> Hint {
    Hint::Name(index.to_owned())
}
