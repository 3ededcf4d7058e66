//! What the cases work with: a store, a clock that moves when it is told to, and short ways to
//! make the usual calls. They unwrap; the cases that look for an error use those that start with
//! `try`.

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

/// A clock that starts at the real time and then moves forward only, when it is told to.
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

/// A pool under test.
#[derive(Clone)]
pub struct TestPool {
    pub pool: Arc<dyn MessagePool>,
    pub clock: Arc<ManualClock>,
    next_id: Arc<AtomicI64>,
}

impl TestPool {
    pub fn new(pool: Arc<dyn MessagePool>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let next_id = Arc::new(AtomicI64::new(Incarnation::generate(clock.now()).get()));
        Self { pool, clock, next_id }
    }

    /// A fresh open queue.
    pub async fn queue(&self) -> TestQueue {
        let queue = self.unopened("conformance", "orders");
        self.pool.open_queue(&queue.queue).await.unwrap();
        queue
    }

    /// A queue that the pool does not know yet, in a life of its own.
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

    /// Sweeps until nothing is left to do; answers how much that was.
    pub async fn sweep_all(&self) -> u64 {
        let mut handled = 0;
        for _ in 0..10_000 {
            let swept = self.sweep().await;
            handled += swept.processed;
            if !swept.more {
                return handled;
            }
        }
        panic!("sweeping does not come to an end");
    }
}

/// A queue of a pool under test.
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

    /// Posts `n` messages that live for an hour; the bodies count from 0.
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

    /// The ids of what a plain list shows.
    pub async fn plain(&self) -> Vec<MessageId> {
        ids(&self.list(&list_visible(100_000)).await.items)
    }

    /// Everything in the queue.
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

    /// Claims up to `n` messages for a minute; there must be one.
    pub async fn take(&self, n: u32) -> Claim {
        self.claim(&claim_spec(n)).await.unwrap()
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

    /// Creates a group and answers its reading.
    pub async fn group(&self, name: &str, start: StartPoint) -> Self {
        let (name, settings) = (name.parse().unwrap(), Metadata::default());
        let created = self.pool.create_group(&self.queue, &name, start, &settings, self.now());
        self.reading(created.await.unwrap().0)
    }

    pub async fn seek(&self, name: &str, to: StartPoint) -> Self {
        let name = name.parse().unwrap();
        let group = self.pool.seek_group(&self.queue, &name, to, self.now()).await.unwrap();
        self.reading(group.unwrap())
    }

    fn reading(&self, group: Group) -> Self {
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

    /// How many messages are free, and how many are claimed.
    pub async fn counts(&self) -> (u64, u64) {
        let stats = self.stats().await;
        (stats.free, stats.claimed)
    }
}

/// A catalog under test.
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

    /// Creates a queue that is not there yet, or answers what is there.
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
