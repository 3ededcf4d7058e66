//! The feed from which this node learns what was changed.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Timestamp, doc},
    error::Result as Answer,
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
    life::{self, GONE_KEPT, by_change, read_key},
    ring::Ring,
};

/// How many changes are read at a time.
const PAGE: u32 = 1_000;
/// How often that is done for one call. A feed with more in it is begun anew.
const PAGES: usize = 50;
/// How long nobody may read the feed before it has forgotten something, with time to spare.
const GAP: Duration = GONE_KEPT.saturating_sub(Duration::from_mins(10));

/// A life of a queue, as much as there is of it in the index of the feed.
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
        let mut ring = self.ring.lock().await;
        self.catch_up(&mut ring).await?;
        Ok(ring.after(after))
    }
}

impl MongoCatalog {
    /// Reads what was changed since it was read last. What is read stays read if it fails.
    async fn catch_up(&self, ring: &mut Ring) -> Result<()> {
        let begin = Instant::now();
        let goes_on = ring.read_at.is_some_and(|read_at| begin - read_at < GAP);
        if !(goes_on && self.read_pages(ring, Ring::push).await?) {
            ring.forget();
            if let Some(change) = self.server.retry(|| self.newest()).await? {
                ring.skip(change.changed, change.key()?);
            }
            self.read_pages(ring, Ring::skip).await?;
        }
        ring.read_at = Some(begin);
        Ok(())
    }

    /// Reads the window; `false` if there is too much in it.
    async fn read_pages(
        &self,
        ring: &mut Ring,
        take: fn(&mut Ring, Timestamp, QueueKey),
    ) -> Result<bool> {
        let mut from = ring.window();
        for _ in 0..PAGES {
            let page = self.server.retry(|| self.read_page(from)).await?;
            let is_last = page.len() < PAGE as usize;
            for change in page {
                from = change.changed;
                take(ring, change.changed, change.key()?);
            }
            if is_last {
                ring.prune();
                return Ok(true);
            }
        }
        ring.prune();
        Ok(false)
    }

    async fn read_page(&self, from: Timestamp) -> Answer<Vec<Change>> {
        let changes = self.feed();
        let find = changes
            .find(doc! { "changed": { "$gte": from } })
            .sort(doc! { "changed": 1 })
            .projection(Change::projection())
            .hint(by_change());
        find.limit(PAGE.into()).batch_size(PAGE).await?.try_collect().await
    }

    async fn newest(&self) -> Answer<Option<Change>> {
        let first = Timestamp { time: 0, increment: 0 };
        self.feed()
            .find_one(doc! { "changed": { "$gte": first } })
            .sort(doc! { "changed": -1 })
            .projection(Change::projection())
            .hint(by_change())
            .await
    }

    fn feed(&self) -> Collection<Change> {
        self.server.durable(life::QUEUES)
    }
}

impl Change {
    /// What the index covers.
    fn projection() -> mongodb::bson::Document {
        doc! { "_id": 0, "changed": 1, "project": 1, "name": 1 }
    }

    fn key(&self) -> Result<QueueKey> {
        read_key(&self.project, &self.name)
    }
}
