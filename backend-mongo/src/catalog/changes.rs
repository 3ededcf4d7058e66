//! The change feed: which queues other nodes changed or deleted.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Timestamp, doc},
    error::Result as DriverResult,
};
use serde::Deserialize;
use storage_traits::{
    Result,
    catalog::{ChangeFeed, ChangeToken, Changes},
    domain::QueueKey,
};
use tokio::time::Instant;

use super::{
    MongoCatalog,
    change_buffer::ChangeBuffer,
    queue_document::{self, TOMBSTONE_TTL, by_change, read_key},
};

/// How many changes one query reads.
const PAGE_SIZE: u32 = 1_000;
/// How many queries one call makes at most. If there are more changes, the buffer is cleared.
const MAX_PAGES: usize = 50;
/// How long a node may go without reading the feed: deletions disappear from it after
/// [`TOMBSTONE_TTL`].
const MAX_READ_INTERVAL: Duration = TOMBSTONE_TTL.saturating_sub(Duration::from_mins(10));

/// The fields of a queue that the index of the feed contains.
#[derive(Deserialize)]
struct Change {
    changed: Timestamp,
    project: String,
    name: String,
}

#[async_trait]
impl ChangeFeed for MongoCatalog {
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes> {
        self.ready().await?;
        let mut buffer = self.buffer.lock().await;
        self.refresh(&mut buffer).await?;
        Ok(buffer.after(after))
    }
}

impl MongoCatalog {
    /// Reads the changes since the last read into the buffer. Changes that were read stay there if
    /// a later query fails.
    async fn refresh(&self, buffer: &mut ChangeBuffer) -> Result<()> {
        let begin = Instant::now();
        let is_recent = buffer.read_at.is_some_and(|read_at| begin - read_at < MAX_READ_INTERVAL);
        if !(is_recent && self.read_pages(buffer, ChangeBuffer::push).await?) {
            buffer.clear();
            if let Some(change) = self.server.retry(|| self.newest()).await? {
                buffer.mark_seen(change.changed, change.key()?);
            }
            self.read_pages(buffer, ChangeBuffer::mark_seen).await?;
        }
        buffer.read_at = Some(begin);
        Ok(())
    }

    /// Reads all changes that may be new. Returns `false` if there are too many.
    async fn read_pages(
        &self,
        buffer: &mut ChangeBuffer,
        add: fn(&mut ChangeBuffer, Timestamp, QueueKey),
    ) -> Result<bool> {
        let mut from = buffer.read_from();
        for _ in 0..MAX_PAGES {
            let page = self.server.retry(|| self.read_page(from)).await?;
            let is_last = page.len() < PAGE_SIZE as usize;
            for change in page {
                from = change.changed;
                add(buffer, change.changed, change.key()?);
            }
            if is_last {
                buffer.prune();
                return Ok(true);
            }
        }
        buffer.prune();
        Ok(false)
    }

    async fn read_page(&self, from: Timestamp) -> DriverResult<Vec<Change>> {
        let changes = self.feed();
        let find = changes
            .find(doc! { "changed": { "$gte": from } })
            .sort(doc! { "changed": 1 })
            .projection(Change::projection())
            .hint(by_change());
        find.limit(PAGE_SIZE.into()).batch_size(PAGE_SIZE).await?.try_collect().await
    }

    async fn newest(&self) -> DriverResult<Option<Change>> {
        let first = Timestamp { time: 0, increment: 0 };
        self.feed()
            .find_one(doc! { "changed": { "$gte": first } })
            .sort(doc! { "changed": -1 })
            .projection(Change::projection())
            .hint(by_change())
            .await
    }

    fn feed(&self) -> Collection<Change> {
        self.server.acked_durably(queue_document::QUEUES)
    }
}

impl Change {
    /// Restricts a query to the fields of the index.
    fn projection() -> mongodb::bson::Document {
        doc! { "_id": 0, "changed": 1, "project": 1, "name": 1 }
    }

    fn key(&self) -> Result<QueueKey> {
        read_key(&self.project, &self.name)
    }
}
