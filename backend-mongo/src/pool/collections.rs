//! Reads and writes of the pool's collections. Each call is retried until it succeeds, its error is
//! permanent, or its time is over.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, deserialize_from_slice, doc, oid::ObjectId},
    error::{Error, ErrorKind},
};
use storage_traits::Result;

use super::{
    bucket::{Bucket, LoadedBucket},
    indexes::{BUCKETS, BY_ID, QUEUES, hint},
    queue_document::QueueDocument,
    stored_message::to_i64,
};
use crate::{
    error::{command_error, unexpected},
    server::{Server, Topology},
};

/// How many bytes of documents one insert command contains at most. A command is a document too,
/// which is limited to 16 MiB.
const MAX_COMMAND_BYTES: usize = 12 << 20;

/// The server's code for a write that a unique index rejects.
const DUPLICATE_KEY: i32 = 11_000;

/// A query, with the index that it uses.
pub(super) struct Query {
    pub(super) filter: Document,
    pub(super) sort: Option<Document>,
    pub(super) index: &'static str,
    /// 0 for no limit.
    pub(super) limit: usize,
}

#[derive(Clone)]
pub(super) struct Collections {
    pub(super) server: Arc<Server>,
}

impl Collections {
    /// Reads documents in the primary's latest state.
    pub(super) async fn find(
        &self,
        name: &'static str,
        query: Query,
    ) -> Result<Vec<RawDocumentBuf>> {
        self.find_projected(name, query, None).await
    }

    /// Reads some fields of documents in the primary's latest state.
    pub(super) async fn find_projected(
        &self,
        name: &'static str,
        query: Query,
        projection: Option<Document>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let Query { filter, sort, index, limit } = query;
        self.server
            .retry(async || {
                let collection = self.server.acked_by_primary::<RawDocumentBuf>(name);
                let mut find =
                    collection.find(filter.clone()).hint(hint(index)).limit(to_i64(limit));
                if let Some(sort) = &sort {
                    find = find.sort(sort.clone());
                }
                if let Some(projection) = &projection {
                    find = find.projection(projection.clone());
                }
                find.await?.try_collect().await
            })
            .await
    }

    /// Reads buckets without their bodies.
    pub(super) async fn load_buckets(&self, query: Query) -> Result<Vec<LoadedBucket>> {
        let found = self.find_projected(BUCKETS, query, Some(doc! { "bodies": 0 })).await?;
        found.iter().map(|raw| Bucket::read(raw)).collect()
    }

    /// Inserts documents. One whose id exists is left as it is, so a repetition is harmless.
    /// `durable` waits for the durability that the pool declares.
    pub(super) async fn insert(
        &self,
        name: &'static str,
        documents: &[Document],
        durable: bool,
    ) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        self.server
            .retry(async || {
                let collection: Collection<Document> = if durable {
                    self.server.acked_durably(name)
                } else {
                    self.server.acked_by_primary(name)
                };
                match collection.insert_many(documents).ordered(false).await {
                    Err(error) if !is_duplicates_only(&error) => Err(error),
                    _ => Ok(()),
                }
            })
            .await
    }

    /// Updates documents of one collection in one command, and returns how many matched. An upsert
    /// that a unique index rejects counts as done: a later state is stored already.
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
        self.server.retry(async || self.run(&command).await).await
    }

    /// Deletes documents of one collection in one command, and returns how many there were.
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
        self.server.retry(async || self.run(&command).await).await
    }

    fn concern(&self, durable: bool) -> Bson {
        if durable { self.server.write_concern() } else { doc! { "w": 1 }.into() }
    }

    /// Inserts documents on the primary alone, and returns its election id, if one primary took
    /// them all. A document whose id exists is left as it is.
    pub(super) async fn insert_on_primary(
        &self,
        name: &'static str,
        documents: &[Document],
    ) -> Result<Option<ObjectId>> {
        // Each shard has a primary of its own.
        let concern = self.concern(self.server.topology() == Topology::Sharded);
        let mut election_ids = Vec::new();
        let mut rest = documents;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |document: &&Document| {
                bytes += command_bytes(document);
                bytes <= MAX_COMMAND_BYTES
            };
            let (part, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let command = doc! {
                "insert": name, "documents": part, "ordered": false,
                "writeConcern": concern.clone(),
            };
            let insert = async || self.reply(&command).await.map(|(_, reply)| reply);
            let reply = self.server.retry(insert).await?;
            election_ids.push(reply.get_object_id("electionId").ok());
        }
        let first = election_ids.first().copied().flatten();
        Ok(first.filter(|_| election_ids.iter().all(|id| *id == first)))
    }

    async fn run(&self, command: &Document) -> mongodb::error::Result<u64> {
        self.reply(command).await.map(|(matched, _)| matched)
    }

    /// Runs a write command. A document that a unique index rejects is no error.
    async fn reply(&self, command: &Document) -> mongodb::error::Result<(u64, Document)> {
        let reply = self.server.database().run_command(command.clone()).await?;
        let is_set = |name: &str| reply.get(name).is_some_and(|it| *it != Bson::Null);
        if let Ok(errors) = reply.get_array("writeErrors") {
            let codes = errors.iter().filter_map(Bson::as_document).map(|e| e.get_i32("code"));
            if let Some(code) = codes
                .map(std::result::Result::unwrap_or_default)
                .find(|code| *code != DUPLICATE_KEY)
            {
                return Err(command_error(code, &reply));
            }
        }
        if is_set("writeConcernError") {
            let code = reply.get_document("writeConcernError").and_then(|it| it.get_i32("code"));
            return Err(command_error(code.unwrap_or_default(), &reply));
        }
        Ok((reply.get_i32("n").map_or(0, |n| u64::try_from(n).unwrap_or(0)), reply))
    }

    /// Reads the revisions and last positions of queues, as far as they are durable.
    pub(super) async fn read_progress(&self, queue_ids: &[i64]) -> Result<Vec<RawDocumentBuf>> {
        let filter = doc! { "_id": { "$in": queue_ids }, "dropped": { "$exists": false } };
        self.server
            .retry(async || {
                let queues: Collection<RawDocumentBuf> = self.server.acked_durably(QUEUES);
                let find = queues.find(filter.clone()).hint(hint(BY_ID));
                find.projection(doc! { "revision": 1, "tail": 1 }).await?.try_collect().await
            })
            .await
    }

    /// Inserts a tombstone in the place of a bucket that was committed but never stored, so that a
    /// late insert of it has no effect. Returns `false` if the bucket was stored after all.
    pub(super) async fn insert_tombstone(&self, queue_id: i64, bucket: ObjectId) -> Result<bool> {
        let tombstone = doc! {
            "_id": bucket, "queue_id": queue_id, "span": 0_i64, "applied_revision": i64::MAX,
            "messages": {}, "bodies": {}, "due": 0_i64, "tombstone": true,
        };
        self.insert(BUCKETS, &[tombstone], true).await?;
        self.is_tombstoned(&[bucket]).await
    }

    /// Returns whether one of these buckets has a tombstone in its place.
    pub(super) async fn is_tombstoned(&self, buckets: &[ObjectId]) -> Result<bool> {
        let filter = doc! { "_id": { "$in": buckets }, "tombstone": true };
        let query = Query { filter, sort: None, index: BY_ID, limit: 1 };
        Ok(!self.find_projected(BUCKETS, query, Some(doc! { "_id": 1 })).await?.is_empty())
    }

    /// Removes entries from the journal of a queue.
    pub(super) async fn truncate_journal(&self, queue_id: i64, commit_ids: &[i64]) -> Result<()> {
        let pull = doc! { "$pull": { "journal": { "commit_id": { "$in": commit_ids } } } };
        let update = doc! { "q": { "_id": queue_id }, "u": pull, "hint": BY_ID };
        self.update(QUEUES, vec![update], false).await.map(drop)
    }

    /// Reads the document of a queue in the primary's latest state, and returns when that state is
    /// durable.
    pub(super) async fn read_latest_durable(&self, queue_id: i64) -> Result<Option<QueueDocument>> {
        let query = Query { filter: open_queue(queue_id), sort: None, index: BY_ID, limit: 1 };
        let found = self.find(QUEUES, query).await?;
        self.majority_barrier(queue_id).await?;
        let read = |raw: &RawDocumentBuf| deserialize_from_slice(raw.as_bytes());
        found.first().map(read).transpose().map_err(unexpected)
    }

    /// Waits until all earlier writes of this primary are durable.
    ///
    /// A write that changes nothing is acknowledged only when the last operation of the server
    /// before it has the requested durability. So this sends an update that has no effect: no queue
    /// has the revision -1, and if one had, the update would set the revision that it has already.
    pub(super) async fn majority_barrier(&self, queue_id: i64) -> Result<()> {
        let no_op = doc! {
            "q": { "_id": queue_id, "revision": -1_i64 },
            "u": { "$set": { "revision": -1_i64 } },
            "hint": BY_ID,
        };
        self.update(QUEUES, vec![no_op], true).await.map(drop)
    }

    /// Reads the durable revision of a queue; `None` if there is no such queue.
    pub(super) async fn committed_revision(&self, queue_id: i64) -> Result<Option<i64>> {
        Ok(self.read_committed(queue_id).await?.map(|document| document.revision))
    }

    /// Reads the durable document of a queue; `None` if there is no such queue.
    pub(super) async fn read_committed(&self, queue_id: i64) -> Result<Option<QueueDocument>> {
        let filter = open_queue(queue_id);
        let found = self
            .server
            .retry(async || {
                let queues: Collection<RawDocumentBuf> = self.server.acked_durably(QUEUES);
                queues.find_one(filter.clone()).hint(hint(BY_ID)).await
            })
            .await?;
        let read = |raw: RawDocumentBuf| deserialize_from_slice(raw.as_bytes());
        found.map(read).transpose().map_err(unexpected)
    }
}

fn open_queue(queue_id: i64) -> Document {
    doc! { "_id": queue_id, "dropped": { "$exists": false } }
}

/// Returns whether an insert failed only because the ids exist.
fn is_duplicates_only(error: &Error) -> bool {
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

/// Returns about how many bytes a bucket takes in a command.
fn command_bytes(bucket: &Document) -> usize {
    let bodies = bucket.get_document("bodies").into_iter().flatten();
    let bytes = bodies.map(|(_, body)| match body {
        Bson::Binary(body) => body.bytes.len(),
        _ => 0,
    });
    // The other fields of 64 messages.
    32 * 1024 + bytes.sum::<usize>()
}
