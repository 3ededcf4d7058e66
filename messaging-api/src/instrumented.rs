//! Stores with metrics: every operation is timed, and its effects are counted.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use storage_traits::{
    Limit, Page, Result,
    catalog::{Catalog, ChangeFeed, ChangeToken, Changes, Created, QueueCatalog, QueueFilter},
    domain::{
        AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, ClientId,
        Group, GroupName, Message, MessageId, Metadata, NewMessage, Posted, ProjectId, QueueKey,
        QueueRecord, QueueRef, StartPoint, Timestamp,
    },
    pool::{
        ClaimStore, DeadLetterStore, DeleteOutcome, Durability, EventCounts, GroupStore, ListSpec,
        MessagePool, MessageStore, PoolMaintenance, RedriveSpec, Redriven, Rescheduled, Stats,
        Swept, Watch, WatchFor, Watchable,
    },
};

use crate::metrics::Metrics;

/// A store that reports its operations to the metrics.
pub(crate) struct Instrumented<S: ?Sized> {
    store: Arc<S>,
    name: &'static str,
    metrics: Arc<Metrics>,
}

impl<S: ?Sized> Instrumented<S> {
    pub(crate) fn new(store: Arc<S>, name: &'static str, metrics: Arc<Metrics>) -> Self {
        Self { store, name, metrics }
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = work.await;
        self.metrics.operation(self.name, operation, result.is_ok(), start.elapsed());
        result
    }
}

#[async_trait]
impl MessageStore for Instrumented<dyn MessagePool> {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>> {
        let posted = self.time("post", self.store.post(queue, client, messages, now)).await?;
        let duplicates = posted.iter().filter(|posted| posted.duplicate).count();
        self.metrics.posted.inc_by((posted.len() - duplicates) as u64);
        Ok(posted)
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        self.time("list", self.store.list(queue, spec, now)).await
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        self.time("get", self.store.get(queue, ids, now)).await
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let outcome = self.time("delete", self.store.delete(queue, id, claim, now)).await?;
        if outcome == DeleteOutcome::Deleted {
            self.metrics.deleted.inc();
        }
        Ok(outcome)
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        self.time("reschedule", self.store.reschedule(queue, id, visible_at, now)).await
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let work = self.store.delete_many(queue, ids, claims, now);
        let deleted = self.time("delete_many", work).await?;
        self.metrics.deleted.inc_by(deleted.unwrap_or(0));
        Ok(deleted)
    }
}

#[async_trait]
impl ClaimStore for Instrumented<dyn MessagePool> {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let claim = self.time("claim", self.store.claim(queue, spec, now)).await?;
        let count = claim.as_ref().map_or(0, |claim| claim.messages.len());
        self.metrics.claimed.inc_by(count as u64);
        Ok(claim)
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        self.time("get_claim", self.store.get_claim(queue, id, now)).await
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        self.time("renew", self.store.renew(queue, id, terms, now)).await
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        self.time("release", self.store.release(queue, id, now)).await
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let work = self.store.acknowledge(queue, id, acknowledgements, now);
        let results = self.time("acknowledge", work).await?;
        let acknowledged = acknowledgements.iter().zip(&results).filter(|(ack, result)| {
            ack.outcome == AckOutcome::Ack && **result == AckResult::Applied
        });
        self.metrics.deleted.inc_by(acknowledged.count() as u64);
        Ok(results)
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let messages = self.time("pop", self.store.pop(queue, limit, now)).await?;
        self.metrics.deleted.inc_by(messages.len() as u64);
        Ok(messages)
    }
}

#[async_trait]
impl DeadLetterStore for Instrumented<dyn MessagePool> {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let done = self.time("redrive", self.store.redrive(queue, spec, now)).await?;
        self.metrics.redriven.inc_by(done.moved);
        Ok(done)
    }
}

#[async_trait]
impl GroupStore for Instrumented<dyn MessagePool> {
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)> {
        let work = self.store.create_group(queue, name, start, settings, now);
        self.time("create_group", work).await
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        self.time("get_group", self.store.get_group(queue, name)).await
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        self.time("list_groups", self.store.list_groups(queue, after, limit)).await
    }

    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>> {
        self.time("seek_group", self.store.seek_group(queue, name, to, now)).await
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        self.time("delete_group", self.store.delete_group(queue, name)).await
    }
}

#[async_trait]
impl Watchable for Instrumented<dyn MessagePool> {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        self.time("watch", self.store.watch(queue, what, now)).await
    }
}

#[async_trait]
impl PoolMaintenance for Instrumented<dyn MessagePool> {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        self.time("open_queue", self.store.open_queue(queue)).await
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        self.time("drop_queue", self.store.drop_queue(queue)).await
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        self.time("stats", self.store.stats(queue, now)).await
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        let purged = self.time("purge", self.store.purge(queue, now)).await?;
        self.metrics.deleted.inc_by(purged);
        Ok(purged)
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        self.time("sweep", self.store.sweep(now)).await
    }

    fn counters(&self) -> EventCounts {
        self.store.counters()
    }

    async fn check(&self) -> Result<()> {
        self.time("check", self.store.check()).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

impl MessagePool for Instrumented<dyn MessagePool> {
    fn durability(&self) -> Durability {
        self.store.durability()
    }
}

#[async_trait]
impl QueueCatalog for Instrumented<dyn Catalog> {
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created> {
        self.time("create", self.store.create(key, metadata, now)).await
    }

    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>> {
        self.time("get", self.store.get(key)).await
    }

    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>> {
        self.time("list", self.store.list(project, filter)).await
    }

    async fn count(&self, project: &ProjectId) -> Result<u64> {
        self.time("count", self.store.count(project)).await
    }

    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<QueueRecord> {
        self.time("update", self.store.update(read, metadata, now)).await
    }

    async fn delete(&self, key: &QueueKey, now: Timestamp) -> Result<Option<QueueRef>> {
        self.time("delete", self.store.delete(key, now)).await
    }
}

#[async_trait]
impl ChangeFeed for Instrumented<dyn Catalog> {
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes> {
        self.time("changes", self.store.changes(after)).await
    }
}

#[async_trait]
impl Catalog for Instrumented<dyn Catalog> {
    async fn check(&self) -> Result<()> {
        self.time("check", self.store.check()).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
