//! Queues. A read is of what is durable, and a write that changes nothing is acknowledged like one
//! that does: whatever stood in its way is durable by then, so a read after it shows why.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::{
    bson::{Document, doc},
    error::Result as Answer,
    options::ReturnDocument,
};
use storage_traits::{
    Page, Result, StoreError,
    catalog::{Created, QueueCatalog, QueueFilter},
    domain::{Metadata, ProjectId, QueueKey, QueueRecord, QueueRef, Timestamp},
};

use super::{
    MongoCatalog,
    life::{Life, by_id, by_name},
};
use crate::{
    chance,
    error::{is_duplicate_key, unexpected},
};

/// How many queues a filtered list reads at a time.
const LIST_CHUNK: u32 = 200;
/// How often an incarnation is drawn. One that is taken is rarer than anything.
const DRAWS: usize = 100;

#[async_trait]
impl QueueCatalog for MongoCatalog {
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created> {
        self.ready().await?;
        let birth = chance::stamp();
        for _ in 0..DRAWS {
            let drawn = Life::new(key, metadata, now, birth);
            let found = self.server.retry(|| self.find_or_insert(key, &drawn)).await?;
            if let Some(life) = found {
                return Ok(Created { record: life.record()?, new: life.birth == birth });
            }
        }
        Err(unexpected("each incarnation that was drawn is taken"))
    }

    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>> {
        self.ready().await?;
        let life = self.server.retry(|| self.find(key)).await?;
        life.map(|life| life.record()).transpose()
    }

    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>> {
        self.ready().await?;
        let all_pass = filter.name_contains.is_none() && filter.metadata.is_empty();
        let chunk = if all_pass { LIST_CHUNK.min(filter.limit.with_spare()) } else { LIST_CHUNK };
        let mut found = Vec::new();
        let mut after = filter.after.clone().unwrap_or_default();
        loop {
            let lives = self.server.retry(|| self.read_names(project, &after, chunk)).await?;
            let Some(last) = lives.last() else { return Ok(Page::cut(found, filter.limit)) };
            after.clone_from(&last.name);
            for life in lives {
                let record = life.record()?;
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
        let (key, stamp) = (&read.queue.key, chance::stamp());
        let unchanged =
            doc! { "_id": read.queue.incarnation.get(), "live": true, "version": read.version };
        let change = doc! {
            "$set": { "metadata": metadata.to_json(), "stamp": stamp },
            "$inc": { "version": 1_i64 },
            "$currentDate": { "changed": { "$type": "timestamp" } },
        };
        match self.server.retry(|| self.change(&unchanged, &change)).await? {
            Some(life) if life.stamp == Some(stamp) => life.record(),
            Some(life) if life.live => {
                Err(StoreError::Conflict { kind: "queue", key: key.to_string() })
            }
            _ => Err(StoreError::not_found("queue", key)),
        }
    }

    async fn delete(&self, key: &QueueKey, _now: Timestamp) -> Result<Option<QueueRef>> {
        self.ready().await?;
        // A repetition must not delete what was created under the name since.
        let Some(life) = self.server.retry(|| self.find(key)).await? else { return Ok(None) };
        let stamp = chance::stamp();
        let unchanged = doc! { "_id": life.id, "live": true };
        let change = doc! {
            "$set": { "live": false, "stamp": stamp },
            "$currentDate": { "changed": { "$type": "timestamp" }, "gone_at": true },
        };
        match self.server.retry(|| self.change(&unchanged, &change)).await? {
            Some(life) if life.stamp == Some(stamp) => life.queue().map(Some),
            _ => Ok(None),
        }
    }
}

impl MongoCatalog {
    async fn find(&self, key: &QueueKey) -> Answer<Option<Life>> {
        self.queues().find_one(Life::filter(key)).hint(by_name()).await
    }

    /// `None` if the incarnation is taken, or what had the name is gone already.
    async fn find_or_insert(&self, key: &QueueKey, drawn: &Life) -> Answer<Option<Life>> {
        if let Some(life) = self.find(key).await? {
            return Ok(Some(life));
        }
        match self.queues().insert_one(drawn).await {
            Ok(_) => Ok(Some(drawn.clone())),
            Err(error) if is_duplicate_key(&error) => self.find(key).await,
            Err(error) => Err(error),
        }
    }

    /// Some lives behind a name.
    async fn read_names(&self, project: &ProjectId, after: &str, n: u32) -> Answer<Vec<Life>> {
        let beyond = doc! { "project": project.as_str(), "live": true, "name": { "$gt": after } };
        let queues = self.queues();
        let find = queues.find(beyond).sort(doc! { "name": 1 }).hint(by_name());
        find.limit(n.into()).batch_size(n).await?.try_collect().await
    }

    /// Changes a life if it is as `unchanged` says, and answers how it is then, in any case.
    async fn change(&self, unchanged: &Document, change: &Document) -> Answer<Option<Life>> {
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
