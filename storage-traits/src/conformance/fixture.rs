//! Fixtures of the cases: a store, a manual clock, and shorthands for the store methods, which pass
//! the clock's time. The shorthands unwrap errors; those whose names start with `try` return them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::builders::{HOUR, claim_spec, client, ids, key, limit, list_all, list_visible, message};
use crate::{
    Clock, Page, Result, SystemClock,
    catalog::Catalog,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, ClientId, Delivery,
        Group, Incarnation, Message, MessageId, Metadata, NewMessage, Posted, QueueKey,
        QueueRecord, QueueRef, Sequence, StartPoint, Timestamp,
    },
    pool::{DeleteOutcome, ListSpec, MessagePool, Rescheduled, Stats, Swept, Watch, WatchFor},
};

/// Clock that starts at the real time, and then only moves forward when a case advances it.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self(AtomicI64::new(SystemClock.now().as_millis()))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Pool under test.
#[derive(Clone)]
pub struct TestPool {
    pub pool: Arc<dyn MessagePool>,
    pub clock: Arc<ManualClock>,
    /// Incarnation of the next queue.
    next_id: Arc<AtomicI64>,
}

impl TestPool {
    pub fn new(pool: Arc<dyn MessagePool>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let next_id = Arc::new(AtomicI64::new(Incarnation::generate(clock.now()).get()));
        Self { pool, clock, next_id }
    }

    /// Opens an empty queue.
    pub async fn queue(&self) -> TestQueue {
        let queue = self.unopened("conformance", "orders");
        self.pool.open_queue(&queue.queue).await.unwrap();
        queue
    }

    /// Returns a queue with a new incarnation that the pool does not know.
    pub fn unopened(&self, project: &str, name: &str) -> TestQueue {
        let incarnation = Incarnation::new(self.next_id.fetch_add(1, Ordering::SeqCst)).unwrap();
        let queue = QueueRef { key: key(project, name), incarnation };
        TestQueue { pool: Arc::clone(&self.pool), clock: Arc::clone(&self.clock), queue }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub async fn sweep(&self) -> Swept {
        self.pool.sweep(self.now()).await.unwrap()
    }

    /// Sweeps until no work is due and returns the number of processed messages and records.
    pub async fn sweep_all(&self) -> u64 {
        let mut processed = 0;
        for _ in 0..10_000 {
            let swept = self.sweep().await;
            processed += swept.processed;
            if !swept.more {
                return processed;
            }
        }
        panic!("work is still due after 10,000 sweeps");
    }
}

/// Queue, or group, of a pool under test.
#[derive(Clone)]
pub struct TestQueue {
    pub pool: Arc<dyn MessagePool>,
    pub clock: Arc<ManualClock>,
    pub queue: QueueRef,
}

impl TestQueue {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Returns the id of the message with this sequence.
    pub fn id(&self, sequence: i64) -> MessageId {
        let sequence = Sequence::new(sequence).unwrap();
        MessageId { incarnation: self.queue.incarnation, sequence }
    }

    pub async fn try_post(&self, messages: Vec<NewMessage>) -> Result<Vec<Posted>> {
        self.pool.post(&self.queue, &client("producer"), messages, self.now()).await
    }

    pub async fn post_as(&self, client: &ClientId, messages: Vec<NewMessage>) -> Vec<MessageId> {
        let posted = self.pool.post(&self.queue, client, messages, self.now()).await.unwrap();
        posted.into_iter().map(|posted| posted.id).collect()
    }

    pub async fn post(&self, messages: Vec<NewMessage>) -> Vec<MessageId> {
        self.post_as(&client("producer"), messages).await
    }

    pub async fn post_one(&self, message: NewMessage) -> MessageId {
        self.post(vec![message]).await[0]
    }

    /// Posts `n` messages with a ttl of an hour. Their bodies are the numbers from 0 on.
    pub async fn post_n(&self, n: usize) -> Vec<MessageId> {
        self.post_n_with(n, HOUR, Duration::ZERO).await
    }

    pub async fn post_n_with(&self, n: usize, ttl: Duration, delay: Duration) -> Vec<MessageId> {
        let delivery = Delivery::After(delay);
        let new = |i: usize| NewMessage { ttl, delivery, ..message(&i.to_string()) };
        let mut ids = Vec::new();
        while ids.len() < n {
            ids.extend(self.post((ids.len()..n).take(500).map(new).collect()).await);
        }
        ids
    }

    pub async fn list(&self, spec: &ListSpec) -> Page<Message> {
        self.pool.list(&self.queue, spec, self.now()).await.unwrap()
    }

    /// Returns the ids of the ready messages.
    pub async fn plain(&self) -> Vec<MessageId> {
        ids(&self.list(&list_visible(100_000)).await.items)
    }

    /// Returns the messages in any state.
    pub async fn all(&self) -> Vec<Message> {
        self.list(&list_all(100_000)).await.items
    }

    pub async fn get(&self, ids: &[MessageId]) -> Vec<Message> {
        self.pool.get(&self.queue, ids, self.now()).await.unwrap()
    }

    pub async fn get_one(&self, id: MessageId) -> Message {
        self.get(&[id]).await.pop().unwrap()
    }

    pub async fn delete(&self, id: MessageId, claim: Option<ClaimId>) -> DeleteOutcome {
        self.pool.delete(&self.queue, id, claim, self.now()).await.unwrap()
    }

    pub async fn delete_many(&self, ids: &[MessageId], claims: &[ClaimId]) -> Option<u64> {
        self.pool.delete_many(&self.queue, ids, claims, self.now()).await.unwrap()
    }

    pub async fn try_claim(&self, spec: &ClaimSpec) -> Result<Option<Claim>> {
        self.pool.claim(&self.queue, spec, self.now()).await
    }

    pub async fn claim(&self, spec: &ClaimSpec) -> Option<Claim> {
        self.try_claim(spec).await.unwrap()
    }

    /// Claims up to `n` messages for 60 seconds, and panics if none is ready.
    pub async fn take(&self, n: u32) -> Claim {
        self.claim(&claim_spec(n)).await.unwrap()
    }

    /// Claims up to `n` messages for 60 seconds and returns their ids.
    pub(super) async fn claim_ids(&self, n: u32) -> Vec<MessageId> {
        let claim = self.claim(&claim_spec(n)).await;
        claim.map(|claim| ids(&claim.messages)).unwrap_or_default()
    }

    pub async fn get_claim(&self, id: ClaimId) -> Option<Claim> {
        self.pool.get_claim(&self.queue, id, self.now()).await.unwrap()
    }

    pub async fn try_renew(&self, id: ClaimId, terms: ClaimTerms) -> Result<()> {
        self.pool.renew(&self.queue, id, terms, self.now()).await
    }

    pub async fn release(&self, id: ClaimId) {
        self.pool.release(&self.queue, id, self.now()).await.unwrap();
    }

    pub async fn acknowledge(
        &self,
        claim: ClaimId,
        acknowledgements: &[Acknowledgement],
    ) -> Vec<AckResult> {
        self.pool.acknowledge(&self.queue, claim, acknowledgements, self.now()).await.unwrap()
    }

    pub async fn reschedule(&self, id: MessageId, visible_at: Timestamp) -> Rescheduled {
        self.pool.reschedule(&self.queue, id, visible_at, self.now()).await.unwrap()
    }

    pub async fn watch(&self, what: WatchFor) -> Watch {
        self.pool.watch(&self.queue, what, self.now()).await.unwrap()
    }

    /// Creates a group and returns it.
    pub async fn group(&self, name: &str, start: StartPoint) -> Self {
        let (name, settings) = (name.parse().unwrap(), Metadata::default());
        let created = self.pool.create_group(&self.queue, &name, start, &settings, self.now());
        self.as_group(created.await.unwrap().0)
    }

    /// Moves a group and returns it.
    pub async fn seek(&self, name: &str, to: StartPoint) -> Self {
        let name = name.parse().unwrap();
        let group = self.pool.seek_group(&self.queue, &name, to, self.now()).await.unwrap();
        self.as_group(group.unwrap())
    }

    fn as_group(&self, group: Group) -> Self {
        Self { queue: group.as_queue, ..self.clone() }
    }

    pub async fn pop(&self, n: u32) -> Vec<Message> {
        self.pool.pop(&self.queue, limit(n), self.now()).await.unwrap()
    }

    pub async fn purge(&self) -> u64 {
        self.pool.purge(&self.queue, self.now()).await.unwrap()
    }

    pub async fn stats(&self) -> Stats {
        self.pool.stats(&self.queue, self.now()).await.unwrap()
    }

    /// Returns the numbers of free and of claimed messages.
    pub async fn counts(&self) -> (u64, u64) {
        let stats = self.stats().await;
        (stats.free, stats.claimed)
    }
}

/// Catalog under test.
#[derive(Clone)]
pub struct TestCatalog {
    pub catalog: Arc<dyn Catalog>,
    pub clock: Arc<ManualClock>,
}

impl TestCatalog {
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog, clock: Arc::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Creates a queue, or returns the existing one.
    pub async fn queue(&self, key: &QueueKey, metadata: &Metadata) -> QueueRecord {
        self.catalog.create(key, metadata, self.now()).await.unwrap().record
    }

    pub async fn get(&self, key: &QueueKey) -> Option<QueueRecord> {
        self.catalog.get(key).await.unwrap()
    }

    pub async fn try_update(&self, read: &QueueRecord, to: &Metadata) -> Result<QueueRecord> {
        self.catalog.update(read, to, self.now()).await
    }

    pub async fn delete(&self, key: &QueueKey) -> Option<QueueRef> {
        self.catalog.delete(key, self.now()).await.unwrap()
    }
}
