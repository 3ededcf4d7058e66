//! Queues.
//!
//! Reads return durable data. A write that changes nothing is acknowledged like one that does: the
//! state that prevented the change is durable then, so a read after it shows the reason.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::{
    bson::{Document, doc},
    error::Result as DriverResult,
    options::ReturnDocument,
};
use storage_traits::{
    Page, Result, StoreError,
    catalog::{Created, QueueCatalog, QueueFilter},
    domain::{Metadata, ProjectId, QueueKey, QueueRecord, QueueRef, Timestamp},
    random::random_i64,
};

use super::{
    MongoCatalog,
    queue_document::{QueueDocument, by_id, by_name},
};
use crate::error::{is_duplicate_key, unexpected};

/// How many queues a filtered list reads at a time.
const LIST_CHUNK: u32 = 200;
/// How many incarnations a creation tries. One that is taken is extremely rare.
const MAX_ATTEMPTS: usize = 100;

#[async_trait]
impl QueueCatalog for MongoCatalog {
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created> {
        self.ready().await?;
        let creation_token = random_i64();
        for _ in 0..MAX_ATTEMPTS {
            let new = QueueDocument::new(key, metadata, now, creation_token);
            let found = self.server.retry(|| self.find_or_insert(key, &new)).await?;
            if let Some(document) = found {
                return Ok(Created {
                    record: document.record()?,
                    new: document.creation_token == creation_token,
                });
            }
        }
        Err(unexpected("each incarnation that was generated is taken"))
    }

    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>> {
        self.ready().await?;
        let document = self.server.retry(|| self.find(key)).await?;
        document.map(|document| document.record()).transpose()
    }

    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>> {
        self.ready().await?;
        let all_pass = filter.name_contains.is_none() && filter.metadata.is_empty();
        let chunk = if all_pass { LIST_CHUNK.min(filter.limit.with_spare()) } else { LIST_CHUNK };
        let mut found = Vec::new();
        let mut after = filter.after.clone().unwrap_or_default();
        loop {
            let documents = self.server.retry(|| self.read_names(project, &after, chunk)).await?;
            let Some(last) = documents.last() else { return Ok(Page::cut(found, filter.limit)) };
            after.clone_from(&last.name);
            for document in documents {
                let record = document.record()?;
                if filter.matches(&record.queue.key.name, &record.metadata) {
                    found.push(record);
                }
            }
            if found.len() > filter.limit.get() {
                return Ok(Page::cut(found, filter.limit));
            }
        }
    }

    async fn count(&self, project: &ProjectId) -> Result<u64> {
        self.ready().await?;
        let all = doc! { "project": project.as_str(), "live": true };
        let count = async || {
            let queues = self.queues();
            queues.count_documents(all.clone()).hint(by_name()).await
        };
        self.server.retry(count).await
    }

    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        _now: Timestamp,
    ) -> Result<QueueRecord> {
        self.ready().await?;
        let (key, update_token) = (&read.queue.key, random_i64());
        let unchanged =
            doc! { "_id": read.queue.incarnation.get(), "live": true, "version": read.version };
        let change = doc! {
            "$set": { "metadata": metadata.to_json(), "update_token": update_token },
            "$inc": { "version": 1_i64 },
            "$currentDate": { "changed": { "$type": "timestamp" } },
        };
        match self.server.retry(|| self.change(&unchanged, &change)).await? {
            Some(document) if document.update_token == Some(update_token) => document.record(),
            Some(document) if document.live => {
                Err(StoreError::Conflict { kind: "queue", key: key.to_string() })
            }
            _ => Err(StoreError::not_found("queue", key)),
        }
    }

    async fn delete(&self, key: &QueueKey, _now: Timestamp) -> Result<Option<QueueRef>> {
        self.ready().await?;
        // A repetition must not delete a queue that was created under the same name since.
        let Some(document) = self.server.retry(|| self.find(key)).await? else { return Ok(None) };
        let update_token = random_i64();
        let unchanged = doc! { "_id": document.id, "live": true };
        let change = doc! {
            "$set": { "live": false, "update_token": update_token },
            "$currentDate": { "changed": { "$type": "timestamp" }, "deleted_at": true },
        };
        match self.server.retry(|| self.change(&unchanged, &change)).await? {
            Some(document) if document.update_token == Some(update_token) => {
                document.queue().map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl MongoCatalog {
    async fn find(&self, key: &QueueKey) -> DriverResult<Option<QueueDocument>> {
        self.queues().find_one(QueueDocument::filter(key)).hint(by_name()).await
    }

    /// Returns the queue with this name, inserted if there was none; `None` if the incarnation is
    /// taken, or the queue was deleted in between.
    async fn find_or_insert(
        &self,
        key: &QueueKey,
        new: &QueueDocument,
    ) -> DriverResult<Option<QueueDocument>> {
        if let Some(document) = self.find(key).await? {
            return Ok(Some(document));
        }
        match self.queues().insert_one(new).await {
            Ok(_) => Ok(Some(new.clone())),
            Err(error) if is_duplicate_key(&error) => self.find(key).await,
            Err(error) => Err(error),
        }
    }

    /// Reads `n` queues with names after `after`.
    async fn read_names(
        &self,
        project: &ProjectId,
        after: &str,
        n: u32,
    ) -> DriverResult<Vec<QueueDocument>> {
        let after = doc! { "project": project.as_str(), "live": true, "name": { "$gt": after } };
        let queues = self.queues();
        let find = queues.find(after).sort(doc! { "name": 1 }).hint(by_name());
        find.limit(n.into()).batch_size(n).await?.try_collect().await
    }

    /// Changes a queue if it matches `unchanged`. Returns it as it is then, changed or not.
    async fn change(
        &self,
        unchanged: &Document,
        change: &Document,
    ) -> DriverResult<Option<QueueDocument>> {
        let queues = self.queues();
        let changed = queues
            .find_one_and_update(unchanged.clone(), change.clone())
            .return_document(ReturnDocument::After)
            .hint(by_id())
            .await?;
        if changed.is_some() {
            return Ok(changed);
        }
        let id = doc! { "_id": unchanged.get("_id") };
        queues.find_one(id).hint(by_id()).await
    }
}
