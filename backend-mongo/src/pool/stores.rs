//! The collections of a pool, and their indexes.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId},
    error::{Error, ErrorKind},
    options::{Hint, IndexOptions},
};
use storage_traits::Result;

use super::{
    bucket::{Bucket, Stored},
    slot::number,
};
use crate::{
    indexes::Index,
    server::{Server, Topology},
};

pub(super) const QUEUES: &str = "pool_queues";
pub(super) const BUCKETS: &str = "pool_buckets";
pub(super) const CLAIMS: &str = "pool_claims";
pub(super) const LINES: &str = "pool_lines";
pub(super) const WINDOWS: &str = "pool_windows";
pub(super) const PARCELS: &str = "pool_parcels";
pub(super) const REFUSE: &str = "pool_refuse";

/// The index that each collection has.
pub(super) const BY_ID: &str = "_id_";
pub(super) const BY_READING: &str = "reading";
pub(super) const BY_PLACE: &str = "place";
pub(super) const BY_READY: &str = "ready";
pub(super) const BY_UNCLAIMED: &str = "unclaimed";
pub(super) const BY_DUE: &str = "due";
pub(super) const BY_TIME: &str = "time";
pub(super) const BY_KEY: &str = "key";
pub(super) const BY_LETTER: &str = "letter";
pub(super) const BY_TURN: &str = "turn";

/// How many bytes of documents go into one command, which is a document as well.
const MOST_BYTES: usize = 12 << 20;

/// The code of an insertion or a change that another document forbids.
const DUPLICATE_KEY: i32 = 11_000;

/// All indexes but those that each collection has.
pub(super) const INDEXES: &[Index] = &[
    Index {
        collection: QUEUES,
        name: BY_READING,
        keys: || doc! { "reading_ids": 1 },
        options: IndexOptions::default,
    },
    // Buckets that have no place yet are found by their home.
    Index {
        collection: BUCKETS,
        name: BY_PLACE,
        keys: || doc! { "home": 1, "reading": 1, "last": 1, "first": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: BUCKETS,
        name: BY_READY,
        keys: || doc! { "home": 1, "reading": 1, "last": 1 },
        options: || having("ready"),
    },
    Index {
        collection: BUCKETS,
        name: BY_UNCLAIMED,
        keys: || doc! { "home": 1, "reading": 1, "last": 1, "free": 1 },
        options: || having("unclaimed"),
    },
    Index {
        collection: BUCKETS,
        name: BY_DUE,
        keys: || doc! { "home": 1, "reading": 1, "due": 1 },
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
        keys: || doc! { "home": 1, "reading": 1, "keys": 1, "last": 1 },
        options: || having("keys"),
    },
    Index {
        collection: BUCKETS,
        name: BY_LETTER,
        keys: || doc! { "home": 1, "reading": 1, "last": 1, "letters": 1 },
        options: || having("letters"),
    },
    Index {
        collection: LINES,
        name: BY_TURN,
        keys: || doc! { "home": 1, "reading": 1, "turn": 1 },
        options: IndexOptions::default,
    },
    Index { collection: LINES, name: "garbage", keys: garbage, options: collected },
    Index { collection: CLAIMS, name: "garbage", keys: garbage, options: collected },
    Index { collection: WINDOWS, name: "garbage", keys: garbage, options: collected },
    Index {
        collection: PARCELS,
        name: BY_TIME,
        keys: || doc! { "due": 1 },
        options: IndexOptions::default,
    },
    Index {
        collection: REFUSE,
        name: BY_TIME,
        keys: || doc! { "due": 1 },
        options: IndexOptions::default,
    },
];

fn having(field: &str) -> IndexOptions {
    let filter = doc! { field: { "$exists": true } };
    IndexOptions::builder().partial_filter_expression(filter).build()
}

fn garbage() -> Document {
    doc! { "garbage_at": 1 }
}

/// The server deletes it when its time has come.
fn collected() -> IndexOptions {
    IndexOptions::builder().expire_after(std::time::Duration::ZERO).build()
}

/// What to name an index by.
pub(super) fn hint(index: &str) -> Hint {
    Hint::Name(index.to_owned())
}

/// Which buckets to load.
pub(super) struct Query {
    pub(super) filter: Document,
    pub(super) sort: Option<Document>,
    pub(super) index: &'static str,
    pub(super) limit: usize,
}

#[derive(Clone)]
pub(super) struct Stores(pub(super) Arc<Server>);

impl Stores {
    pub(super) fn quick(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.0.quick(name)
    }

    /// Finds documents in the primary's latest state.
    pub(super) async fn find(
        &self,
        name: &'static str,
        query: Query,
    ) -> Result<Vec<RawDocumentBuf>> {
        self.find_parts(name, query, None).await
    }

    /// Finds parts of documents.
    pub(super) async fn find_parts(
        &self,
        name: &'static str,
        query: Query,
        parts: Option<Document>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let Query { filter, sort, index, limit } = query;
        self.0
            .retry(async || {
                let collection = self.quick(name);
                let mut find =
                    collection.find(filter.clone()).hint(hint(index)).limit(number(limit));
                if let Some(sort) = &sort {
                    find = find.sort(sort.clone());
                }
                if let Some(parts) = &parts {
                    find = find.projection(parts.clone());
                }
                find.await?.try_collect().await
            })
            .await
    }

    /// Loads buckets without their bodies.
    pub(super) async fn buckets(&self, query: Query) -> Result<Vec<Stored>> {
        let found = self.find_parts(BUCKETS, query, Some(doc! { "bodies": 0 })).await?;
        found.iter().map(|raw| Bucket::read(raw)).collect()
    }

    /// Inserts documents that nobody has inserted before; what is there already is left alone.
    /// `durable` waits for the promised durability.
    pub(super) async fn insert(
        &self,
        name: &'static str,
        documents: &[Document],
        durable: bool,
    ) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        self.0
            .retry(async || {
                let collection: Collection<Document> =
                    if durable { self.0.durable(name) } else { self.0.quick(name) };
                match collection.insert_many(documents).ordered(false).await {
                    Err(error) if !are_all_there(&error) => Err(error),
                    _ => Ok(()),
                }
            })
            .await
    }

    /// Runs many changes of one collection as one command; a document that an upsert would make
    /// twice counts as changed already. Answers how many were found.
    pub(super) async fn update(
        &self,
        name: &'static str,
        updates: Vec<Document>,
        durable: bool,
    ) -> Result<u64> {
        if updates.is_empty() {
            return Ok(0);
        }
        let concern = self.concern(durable);
        let command = doc! {
            "update": name, "updates": updates, "ordered": false, "writeConcern": concern
        };
        self.0.retry(async || self.run(&command).await).await
    }

    /// Deletes documents by name.
    pub(super) async fn delete(
        &self,
        name: &'static str,
        deletes: Vec<Document>,
        durable: bool,
    ) -> Result<u64> {
        if deletes.is_empty() {
            return Ok(0);
        }
        let concern = self.concern(durable);
        let command = doc! {
            "delete": name, "deletes": deletes, "ordered": false, "writeConcern": concern
        };
        self.0.retry(async || self.run(&command).await).await
    }

    fn concern(&self, durable: bool) -> Bson {
        if durable { self.0.write_concern() } else { doc! { "w": 1 }.into() }
    }

    /// Inserts documents on the primary alone; answers the term in which that was done, if it was
    /// one. What is there already is left alone.
    pub(super) async fn insert_in_term(
        &self,
        name: &'static str,
        documents: &[Document],
    ) -> Result<Option<ObjectId>> {
        // Each shard has a primary of its own.
        let concern = self.concern(self.0.topology() == Topology::Sharded);
        let mut terms = Vec::new();
        let mut rest = documents;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |document: &&Document| {
                bytes += bytes_of(document);
                bytes <= MOST_BYTES
            };
            let (part, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let command = doc! {
                "insert": name, "documents": part, "ordered": false,
                "writeConcern": concern.clone(),
            };
            let insert = async || self.reply(&command).await.map(|(_, reply)| reply);
            let reply = self.0.retry(insert).await?;
            terms.push(reply.get_object_id("electionId").ok());
        }
        let first = terms.first().copied().flatten();
        Ok(first.filter(|_| terms.iter().all(|term| *term == first)))
    }

    async fn run(&self, command: &Document) -> mongodb::error::Result<u64> {
        self.reply(command).await.map(|(found, _)| found)
    }

    async fn reply(&self, command: &Document) -> mongodb::error::Result<(u64, Document)> {
        let reply = self.0.database().run_command(command.clone()).await?;
        let wrong = |name: &str| reply.get(name).is_some_and(|it| *it != Bson::Null);
        if let Ok(errors) = reply.get_array("writeErrors") {
            let codes = errors.iter().filter_map(Bson::as_document).map(|e| e.get_i32("code"));
            if let Some(code) = codes
                .map(std::result::Result::unwrap_or_default)
                .find(|code| *code != DUPLICATE_KEY)
            {
                return Err(refused(&reply, code));
            }
        }
        if wrong("writeConcernError") {
            let code = reply.get_document("writeConcernError").and_then(|it| it.get_i32("code"));
            return Err(refused(&reply, code.unwrap_or_default()));
        }
        Ok((reply.get_i32("n").map_or(0, |n| u64::try_from(n).unwrap_or(0)), reply))
    }

    /// The bodies of messages.
    pub(super) async fn bodies(&self, wanted: &[(ObjectId, u32)]) -> Result<super::body::Bodies> {
        super::body::load(self, wanted).await
    }

    /// How far queues have come, as far as is durable.
    pub(super) async fn progress(&self, homes: &[i64]) -> Result<Vec<RawDocumentBuf>> {
        let filter = doc! { "_id": { "$in": homes }, "gone": { "$exists": false } };
        self.0
            .retry(async || {
                let queues: Collection<RawDocumentBuf> = self.0.durable(QUEUES);
                let find = queues.find(filter.clone()).hint(hint(BY_ID));
                find.projection(doc! { "epoch": 1, "tail": 1 }).await?.try_collect().await
            })
            .await
    }

    /// Gives a bucket up that was never stored, so that it never will be; `false` if it was.
    pub(super) async fn bury(&self, home: i64, bucket: ObjectId) -> Result<bool> {
        let grave = doc! {
            "_id": bucket, "home": home, "span": 0_i64, "version": i64::MAX, "slots": {},
            "bodies": {}, "due": 0_i64, "lost": true,
        };
        self.insert(BUCKETS, &[grave], true).await?;
        self.is_buried(&[bucket]).await
    }

    /// Whether one of these buckets was given up.
    pub(super) async fn is_buried(&self, buckets: &[ObjectId]) -> Result<bool> {
        let filter = doc! { "_id": { "$in": buckets }, "lost": true };
        let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
        Ok(!self.find_parts(BUCKETS, query, Some(doc! { "_id": 1 })).await?.is_empty())
    }

    /// Takes entries from the journal of a queue.
    pub(super) async fn clear_journal(&self, home: i64, tokens: &[i64]) -> Result<()> {
        let pull = doc! { "$pull": { "journal": { "token": { "$in": tokens } } } };
        let update = doc! { "q": { "_id": home }, "u": pull, "hint": BY_ID };
        self.update(QUEUES, vec![update], false).await.map(drop)
    }

    /// The document of a queue in the primary's latest state, which is made durable before this
    /// answers.
    pub(super) async fn latest(&self, home: i64) -> Result<Option<super::record::Record>> {
        let filter = doc! { "_id": home, "gone": { "$exists": false } };
        let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
        let found = self.find(QUEUES, query).await?;
        self.barrier(home).await?;
        let read = |raw: &RawDocumentBuf| mongodb::bson::deserialize_from_slice(raw.as_bytes());
        found.first().map(read).transpose().map_err(crate::error::unexpected)
    }

    /// Waits until what went before is durable.
    pub(super) async fn barrier(&self, home: i64) -> Result<()> {
        let nothing = doc! { "q": { "_id": home, "epoch": -1_i64 }, "u": { "$set": { "gone": true } }, "hint": BY_ID };
        self.update(QUEUES, vec![nothing], true).await.map(drop)
    }

    /// The epoch of a queue as it is durable.
    pub(super) async fn epoch(&self, home: i64) -> Result<Option<i64>> {
        Ok(self.record(home).await?.map(|record| record.epoch))
    }

    /// The document of a queue as it is durable.
    pub(super) async fn record(&self, home: i64) -> Result<Option<super::record::Record>> {
        let filter = doc! { "_id": home, "gone": { "$exists": false } };
        let found = self
            .0
            .retry(async || {
                let queues: Collection<RawDocumentBuf> = self.0.durable(QUEUES);
                queues.find_one(filter.clone()).hint(hint(BY_ID)).await
            })
            .await?;
        let read = |raw: RawDocumentBuf| mongodb::bson::deserialize_from_slice(raw.as_bytes());
        found.map(read).transpose().map_err(crate::error::unexpected)
    }
}

/// Whether an insertion failed only because all that failed is there already.
fn are_all_there(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::InsertMany(many) => {
            many.write_concern_error.is_none()
                && many.write_errors.as_ref().is_some_and(|errors| {
                    !errors.is_empty() && errors.iter().all(|error| error.code == DUPLICATE_KEY)
                })
        }
        _ => false,
    }
}

/// About how much a bucket takes in a command.
fn bytes_of(bucket: &Document) -> usize {
    let bodies = bucket.get_document("bodies").into_iter().flatten();
    let bytes = bodies.map(|(_, body)| match body {
        Bson::Binary(body) => body.bytes.len(),
        _ => 0,
    });
    // The rest is small beside it.
    32 * 1024 + bytes.sum::<usize>()
}

/// What a command that was carried out in part says, as the error that it would have been.
fn refused(reply: &Document, code: i32) -> Error {
    crate::error::command_error(code, reply)
}
