//! The suite, run on the reference stores, which shows that every case can be passed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;

use super::{CatalogHarness, PoolHarness, ReferencePool};
use crate::{
    Page, Result, StoreError,
    catalog::{
        Catalog, ChangeFeed, ChangeToken, Changed, Changes, Created, QueueCatalog, QueueFilter,
    },
    domain::{Incarnation, Metadata, ProjectId, QueueKey, QueueRecord, QueueRef, Timestamp},
    pool::MessagePool,
};

struct Reference(Arc<ReferencePool>, Arc<ReferenceCatalog>);

impl PoolHarness for Reference {
    async fn start() -> Self {
        Self(Arc::default(), Arc::default())
    }

    fn pool(&self) -> Arc<dyn MessagePool> {
        Arc::clone(&self.0) as _
    }
}

impl CatalogHarness for Reference {
    async fn start() -> Self {
        Self(Arc::default(), Arc::default())
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.1) as _
    }
}

crate::pool_conformance_tests!(Reference);
crate::catalog_conformance_tests!(Reference);

#[derive(Default)]
struct ReferenceCatalog(Mutex<State>);

#[derive(Default)]
struct State {
    closed: bool,
    queues: BTreeMap<QueueKey, QueueRecord>,
    changes: Vec<QueueKey>,
}

impl ReferenceCatalog {
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.0.lock().unwrap();
        if state.closed {
            return Err(StoreError::Unavailable { backend: "reference", source: "closed".into() });
        }
        Ok(state)
    }
}

#[async_trait]
impl QueueCatalog for ReferenceCatalog {
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created> {
        let mut state = self.state()?;
        let new = !state.queues.contains_key(key);
        let record = state.queues.entry(key.clone()).or_insert_with(|| QueueRecord {
            queue: QueueRef { key: key.clone(), incarnation: Incarnation::generate(now) },
            metadata: metadata.clone(),
            version: 1,
            created_at: now,
        });
        Ok(Created { record: record.clone(), new })
    }

    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>> {
        Ok(self.state()?.queues.get(key).cloned())
    }

    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>> {
        let state = self.state()?;
        let wanted = |record: &&QueueRecord| {
            let name = &record.queue.key.name;
            record.queue.key.project == *project
                && filter.after.as_ref().is_none_or(|after| name.as_str() > after.as_str())
                && filter.matches(name, &record.metadata)
        };
        Ok(Page::cut(state.queues.values().filter(wanted).cloned().collect(), filter.limit))
    }

    async fn count(&self, project: &ProjectId) -> Result<u64> {
        Ok(self.state()?.queues.keys().filter(|key| key.project == *project).count() as u64)
    }

    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        _now: Timestamp,
    ) -> Result<QueueRecord> {
        let (mut state, key) = (self.state()?, &read.queue.key);
        let same_incarnation = |record: &&mut QueueRecord| record.queue == read.queue;
        let missing = || StoreError::not_found("queue", key);
        let record = state.queues.get_mut(key).filter(same_incarnation).ok_or_else(missing)?;
        if record.version != read.version {
            return Err(StoreError::Conflict { kind: "queue", key: key.to_string() });
        }
        record.metadata = metadata.clone();
        record.version += 1;
        let record = record.clone();
        state.changes.push(key.clone());
        Ok(record)
    }

    async fn delete(&self, key: &QueueKey, _now: Timestamp) -> Result<Option<QueueRef>> {
        let mut state = self.state()?;
        let deleted = state.queues.remove(key);
        state.changes.extend(deleted.is_some().then(|| key.clone()));
        Ok(deleted.map(|record| record.queue))
    }
}

#[async_trait]
impl ChangeFeed for ReferenceCatalog {
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes> {
        let state = self.state()?;
        let len = state.changes.len();
        let from = after.map_or(len, |token| usize::try_from(token.get()).unwrap());
        let to = len.min(from + 1_000);
        Ok(Changes {
            changed: Changed::Queues(state.changes[from..to].to_vec()),
            next: ChangeToken::new(i64::try_from(to).unwrap()),
        })
    }
}

#[async_trait]
impl Catalog for ReferenceCatalog {
    async fn check(&self) -> Result<()> {
        self.state().map(drop)
    }

    async fn close(&self) {
        self.0.lock().unwrap().closed = true;
    }
}
