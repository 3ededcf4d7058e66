//! A node crashes many times in the middle of its calls. Whatever steps of the protocol it had
//! done, another node finds all or nothing of each call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backend_mongo::{MongoOptions, MongoPool};
use mongodb::{
    Client,
    bson::{Binary, Document, doc, spec::BinarySubtype},
};
use storage_traits::{
    Limit, StoreError,
    conformance::{
        TestPool, TestQueue,
        faults::{
            ack, claim_spec, counted, dead_letter_to, deduplicated, everything, keyed, list_all,
            message, nack, retained, soon, text, through,
        },
    },
    domain::{AckResult, ClaimId, Message, NewMessage, StartPoint},
    pool::{ListSpec, RedriveSpec},
};
use test_servers::mongo::Mongo;
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{Instant, interval},
};

use crate::{
    pools::node,
    support::{own_database, plans::bare, single, standalone},
};

/// How many clients a node has.
const CLIENTS: usize = 8;
/// The ttl of messages: longer than all rounds take by the clock of the test.
const TTL: Duration = Duration::from_hours(24);
/// After this time by the clock of the test, all claims have expired, and a sweep checks pending
/// transfers again.
const CLAIM_EXPIRY: Duration = Duration::from_mins(2);

/// A pseudo-random number generator; the same seed gives the same numbers.
struct SeededRng(u64);

impl SeededRng {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Returns a new seed, which is printed, or the one in `CHAPAR_SEED`.
fn seed() -> u64 {
    let seed = option_env!("CHAPAR_SEED").map_or_else(
        || u64::from_be_bytes(ClaimId::random().to_bytes()[..8].try_into().unwrap()) | 1,
        |seed| seed.parse().unwrap(),
    );
    println!("CHAPAR_SEED={seed}");
    seed
}

/// Messages that were posted together.
struct Batch {
    bodies: Vec<String>,
    acknowledged: bool,
    /// Whether they have deduplication ids, so that they may be posted again.
    once: bool,
    /// Whether they were posted to the queue that has no consumers.
    kept: bool,
}

/// A claim that a client requested.
#[derive(Default)]
struct Claimed {
    /// The messages that it got, if the call returned.
    answer: Option<Vec<Message>>,
    /// Whether any of its messages may have been acknowledged or released.
    touched: bool,
}

/// What the clients of a node know when it crashes.
#[derive(Default)]
struct Log {
    batches: Vec<Batch>,
    claims: HashMap<ClaimId, Claimed>,
    /// Messages that may have been acknowledged, and those that were.
    tried: HashSet<String>,
    taken: HashSet<String>,
    errors: Vec<String>,
}

/// What the clients of a node share.
#[derive(Clone)]
struct Clients {
    /// The queue that is consumed, its dead-letter queue, and the queue that has no consumers.
    queues: [TestQueue; 3],
    round: usize,
    log: Arc<Mutex<Log>>,
    answered: watch::Sender<usize>,
    /// Whether the node is about to crash.
    dies: Arc<AtomicBool>,
}

impl Clients {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Returns what a call returned, and records its error.
    fn answer<T>(&self, what: &str, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(answer) => {
                self.answered.send_modify(|count| *count += 1);
                Some(answer)
            }
            // Tasks of the node end one by one, so a call may fail because another task has ended.
            Err(_) if self.dies.load(Ordering::SeqCst) => None,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                self.log().errors.push(format!("{what}: {error}: {source:?}"));
                None
            }
        }
    }

    async fn run(self, number: usize, mut rng: SeededRng) {
        for n in 0.. {
            match rng.roll(20) {
                0..=4 => self.post(number, n, false, &mut rng).await,
                5..=7 => self.post(number, n, true, &mut rng).await,
                8..=14 => self.consume(&mut rng).await,
                15..=16 => self.change_groups(&mut rng).await,
                17 => self.redrive().await,
                18 => drop(self.answer("list", self.try_list().await)),
                _ => {
                    let [queue, ..] = &self.queues;
                    let swept = queue.pool.sweep(queue.now()).await;
                    self.answer("sweep", swept);
                }
            }
        }
    }

    async fn try_list(&self) -> Result<usize, StoreError> {
        let [queue, ..] = &self.queues;
        let page = queue.pool.list(&queue.queue, &list_all(100), queue.now()).await?;
        Ok(page.items.len())
    }

    async fn post(&self, number: usize, n: usize, kept: bool, rng: &mut SeededRng) {
        let count = if rng.roll(8) == 0 { 70 } else { 1 + rng.roll(3) };
        let bodies: Vec<_> =
            (0..count).map(|part| format!("\"{}-{number}-{n}-{part}\"", self.round)).collect();
        let kind = rng.roll(4);
        let make = |body: &String| {
            let message = match kind {
                0 => keyed(&format!("k{}", number % 3), body),
                1 => deduplicated(body.trim_matches('"'), body),
                2 if rng.roll(2) == 0 => retained(body),
                _ => message(body),
            };
            NewMessage { ttl: TTL, ..message }
        };
        let messages: Vec<_> = bodies.iter().map(make).collect();
        let place = {
            let mut log = self.log();
            log.batches.push(Batch { bodies, acknowledged: false, once: kind == 1, kept });
            log.batches.len() - 1
        };
        let queue = if kept { &self.queues[2] } else { &self.queues[0] };
        if self.answer("post", queue.try_post(messages).await).is_some() {
            self.log().batches[place].acknowledged = true;
        }
    }

    async fn consume(&self, rng: &mut SeededRng) {
        let [queue, dlq, _] = &self.queues;
        let mut spec = claim_spec(1 + u32::try_from(rng.roll(20)).unwrap());
        if rng.roll(3) == 0 {
            spec.dead_letter = Some(dead_letter_to(2, dlq));
        }
        self.log().claims.insert(spec.id, Claimed::default());
        let Some(Some(claim)) = self.answer("claim", queue.try_claim(&spec).await) else { return };
        let messages = claim.messages;
        self.log().claims.get_mut(&claim.id).unwrap().answer = Some(messages.clone());
        let what = rng.roll(4);
        if what == 0 {
            return;
        }
        self.log().claims.get_mut(&claim.id).unwrap().touched = true;
        if what == 1 {
            let released = queue.pool.release(&queue.queue, claim.id, queue.now()).await;
            self.answer("release", released);
            return;
        }
        let part = if what == 2 { messages.len() } else { messages.len().div_ceil(2) };
        self.log().tried.extend(messages[..part].iter().map(text));
        let mut said: Vec<_> = messages[..part].iter().map(|it| ack(it.id)).collect();
        said.extend(messages[part..].iter().map(|it| nack(it.id, Duration::ZERO)));
        let now = queue.now();
        let answers = queue.pool.acknowledge(&queue.queue, claim.id, &said, now).await;
        let Some(answers) = self.answer("acknowledge", answers) else { return };
        for (message, answer) in messages[..part].iter().zip(answers) {
            if answer == AckResult::Applied {
                self.log().taken.insert(text(message));
            } else {
                self.log().errors.push(format!("{} was not held", text(message)));
            }
        }
    }

    async fn change_groups(&self, rng: &mut SeededRng) {
        let queue = &self.queues[2];
        let name = format!("g{}", rng.roll(3)).parse().unwrap();
        if rng.roll(3) == 0 {
            let deleted = queue.pool.delete_group(&queue.queue, &name).await;
            self.answer("delete a group", deleted);
            return;
        }
        let settings = storage_traits::domain::Metadata::default();
        let now = queue.now();
        let created =
            queue.pool.create_group(&queue.queue, &name, StartPoint::Start, &settings, now).await;
        self.answer("create a group", created);
    }

    async fn redrive(&self) {
        let [_, dlq, _] = &self.queues;
        let spec = RedriveSpec { limit: Limit::new(5).unwrap(), rate: None };
        let redriven = dlq.pool.redrive(&dlq.queue, spec, dlq.now()).await;
        self.answer("redrive", redriven);
    }
}

/// A node in a runtime of its own, which ends as abruptly as a process.
struct CrashingNode {
    runtime: Runtime,
    name: String,
    dies: Arc<AtomicBool>,
}

impl CrashingNode {
    fn start(
        server: &'static Mongo,
        database: &str,
        clients: &Clients,
        rng: &mut SeededRng,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let name = format!("node-{database}-{}", clients.round);
        let uri = server.uri_of(database);
        let mark = if uri.contains('?') { '&' } else { '?' };
        let uri = format!("{uri}{mark}timeoutMS=30000&appName={name}");
        let (clients, dies) = (clients.clone(), Arc::clone(&clients.dies));
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| rng.roll(1 << 30) as u64 * 2 + 1).collect();
        runtime.spawn(async move {
            let options = MongoOptions::parse(&uri).unwrap();
            let pool = TestPool::new(Arc::new(MongoPool::open(options).await.unwrap()));
            let queues = clients.queues.each_ref().map(|queue| through(&pool, queue));
            for (number, seed) in seeds.into_iter().enumerate() {
                let clients = Clients { queues: queues.clone(), ..clients.clone() };
                tokio::spawn(clients.run(number, SeededRng(seed)));
            }
        });
        Self { runtime, name, dies }
    }

    /// Ends the node, and waits until the server has finished the commands that it had received.
    fn kill(self, judge: &Runtime, server: &Mongo) {
        self.dies.store(true, Ordering::SeqCst);
        self.runtime.shutdown_timeout(Duration::from_secs(20));
        judge.block_on(async {
            let admin = Client::with_uri_str(server.uri()).await.unwrap().database("admin");
            let all = [
                doc! { "$currentOp": { "allUsers": true, "idleConnections": true } },
                doc! { "$match": { "appName": &self.name } },
            ];
            let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(5)));
            loop {
                let mut left = admin.aggregate(all.clone()).await.unwrap();
                if !left.advance().await.unwrap() {
                    return;
                }
                assert!(start.elapsed() < Duration::from_secs(30), "connections are left");
                ticks.tick().await;
            }
        });
    }
}

/// The checks by another node.
struct Judge {
    database: mongodb::Database,
    /// All messages that were read from the queue without consumers, in all rounds.
    read: Vec<(i64, String)>,
    /// Bodies of messages that may have been removed, of all rounds.
    tried: HashSet<String>,
    posts: usize,
    unknown_claims: usize,
    made_unanswered: usize,
}

fn bodies(messages: &[Message]) -> Vec<String> {
    messages.iter().map(text).collect()
}

impl Judge {
    async fn judge(&mut self, queues: &[TestQueue; 3], log: Log) {
        let [queue, dlq, kept] = queues;
        assert!(log.errors.is_empty(), "{:#?}", log.errors);
        let all = counted(queue).await;
        self.judge_claims(queue, &all, &log).await;
        // A sweep delivers pending transfers: the next one, or one a minute later if a sweep of the
        // crashed node has postponed them.
        queue.advance(CLAIM_EXPIRY);
        while queue.pool.sweep(queue.now()).await.unwrap().more {}
        let (all, dead_letters) = (counted(queue).await, counted(dlq).await);
        assert!(
            dead_letters.iter().all(|dead_letter| dead_letter.origin.is_some()),
            "a dead letter without an origin"
        );
        let mut there = BTreeMap::new();
        for body in bodies(&all).into_iter().chain(bodies(&dead_letters)) {
            *there.entry(body).or_insert(0_usize) += 1;
        }
        let doubled: Vec<_> = there.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{doubled:?}");
        let back: Vec<_> = log.taken.iter().filter(|body| there.contains_key(*body)).collect();
        assert!(back.is_empty(), "{back:?} were acknowledged");
        self.tried.extend(log.tried.iter().cloned());
        self.judge_kept(kept, &log).await;
        let read: BTreeSet<_> = self.read.iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(read.len(), self.read.len(), "something was stored twice");
        for batch in &log.batches {
            self.posts += batch.bodies.len();
            let is_there = |body: &&String| {
                there.contains_key(*body) || self.tried.contains(*body) || read.contains(*body)
            };
            let found = batch.bodies.iter().filter(is_there).count();
            let bodies = &batch.bodies;
            if batch.acknowledged {
                assert_eq!(found, bodies.len(), "acknowledged, and lost: {bodies:?}");
            }
            assert!(found == 0 || found == bodies.len(), "{found} of {bodies:?} are there");
        }
    }

    /// Checks that each claim holds all of its messages, or none.
    async fn judge_claims(&mut self, queue: &TestQueue, all: &[Message], log: &Log) {
        let claims = self.database.collection::<Document>("pool_claims");
        for (id, claimed) in &log.claims {
            let held: Vec<_> = all.iter().filter(|it| it.claim == Some(*id)).collect();
            let held: Vec<i64> = held.iter().map(|it| it.id.sequence.get()).collect();
            let known = queue.get_claim(*id).await;
            if let Some(known) = &known {
                let of_claim: Vec<_> =
                    known.messages.iter().map(|it| it.id.sequence.get()).collect();
                assert_eq!(of_claim, held, "a claim and the list differ");
            }
            if let Some(answer) = &claimed.answer {
                let got: Vec<_> = answer.iter().map(|it| it.id.sequence.get()).collect();
                if claimed.touched {
                    assert!(held.iter().all(|it| got.contains(it)), "{held:?} are not of {got:?}");
                } else {
                    assert_eq!(held, got, "a claim has lost something");
                    assert!(known.is_some(), "a claim is unknown");
                }
                continue;
            }
            let own = queue.queue.incarnation.get().to_be_bytes();
            let name = [&own[..], &id.to_bytes()].concat();
            let name = Binary { subtype: BinarySubtype::Generic, bytes: name };
            let Some(record) = claims.find_one(doc! { "_id": name }).await.unwrap() else {
                // No caller has this claim; it expires.
                self.unknown_claims += usize::from(!held.is_empty());
                continue;
            };
            let sequences = record.get_array("sequences").unwrap();
            let sequences: Vec<_> = sequences.iter().map(|it| it.as_i64().unwrap()).collect();
            self.made_unanswered += usize::from(!held.is_empty());
            assert!(held.is_empty() || held == sequences, "{held:?} of {sequences:?} are held");
        }
    }

    /// Checks that the queue without consumers and its groups have no gaps.
    async fn judge_kept(&mut self, kept: &TestQueue, log: &Log) {
        for batch in log.batches.iter().filter(|it| it.kept && it.once && !it.acknowledged) {
            let again = |body: &String| NewMessage {
                ttl: TTL,
                ..deduplicated(body.trim_matches('"'), body)
            };
            kept.post(batch.bodies.iter().map(again).collect()).await;
        }
        loop {
            let after = self.read.last().map(|(sequence, _)| *sequence);
            let after = after.and_then(storage_traits::domain::Sequence::new);
            let page = kept.list(&ListSpec { after, ..list_all(50) }).await;
            if page.items.is_empty() {
                break;
            }
            self.read.extend(page.items.iter().map(|it| (it.id.sequence.get(), text(it))));
        }
        for (n, (sequence, body)) in (1..).zip(&self.read) {
            assert_eq!(*sequence, n, "there is a gap before {body}");
        }
        let all = bodies(&counted(kept).await);
        assert!(all.iter().eq(self.read.iter().map(|(_, body)| body)), "a reader missed something");
        let limit = Limit::new(100).unwrap();
        let groups = kept.pool.list_groups(&kept.queue, None, limit).await.unwrap();
        for group in groups.items {
            let of_group = TestQueue { queue: group.as_queue, ..kept.clone() };
            assert_eq!(bodies(&counted(&of_group).await), all, "the group {:?}", group.name);
        }
    }
}

/// Consumes all messages of a queue, and returns how many there were.
async fn drain(queue: &TestQueue) -> usize {
    let mut count = 0;
    while let Some(claim) = queue.claim(&claim_spec(50)).await {
        let said: Vec<_> = claim.messages.iter().map(|it| ack(it.id)).collect();
        count += said.len();
        queue.acknowledge(claim.id, &said).await;
    }
    count
}

fn another_node_finds_all_or_nothing(server: &'static Mongo, rounds: usize) {
    let mut rng = SeededRng(seed());
    let runtime = Runtime::new().unwrap();
    let name = own_database();
    let (survivor, database) =
        runtime.block_on(async { (node(server, &name).await, bare(server, &name).await) });
    let queues = runtime.block_on(async {
        [survivor.queue().await, survivor.queue().await, survivor.queue().await]
    });
    let mut judge = Judge {
        database: database.clone(),
        read: Vec::new(),
        tried: HashSet::new(),
        posts: 0,
        unknown_claims: 0,
        made_unanswered: 0,
    };
    for round in 0..rounds {
        let clients = Clients {
            queues: queues.clone(),
            round,
            log: Arc::default(),
            answered: watch::Sender::new(0),
            dies: Arc::default(),
        };
        let crashing = CrashingNode::start(server, &name, &clients, &mut rng);
        let calls = 1 + rng.roll(150);
        let mut answered = clients.answered.subscribe();
        runtime.block_on(soon(answered.wait_for(|count| *count >= calls))).unwrap();
        crashing.kill(&runtime, server);
        let log = std::mem::take(&mut *clients.log());
        runtime.block_on(async {
            // A node that lived through the crash has a cache, a new one has none; both must see
            // the same.
            let queues = if round % 2 == 0 {
                queues.clone()
            } else {
                let new = node(server, &name).await;
                queues.each_ref().map(|queue| through(&new, queue))
            };
            judge.judge(&queues, log).await;
        });
    }
    runtime.block_on(async {
        let left = everything(&queues[0]).await.len();
        let dead_letters = everything(&queues[1]).await.len();
        let records = database.collection::<Document>("pool_queues");
        for queue in &queues {
            let number = queue.queue.incarnation.get();
            let record = records.find_one(doc! { "_id": number }).await.unwrap().unwrap();
            println!(
                "a journal of {} entries in {} bytes",
                record.get_array("journal").unwrap().len(),
                mongodb::bson::serialize_to_vec(&record).unwrap().len()
            );
        }
        println!(
            "{} posts; {} were read; {left} messages and {dead_letters} dead letters are left; \
             {} claims were made whose call failed, {} of them are unknown to every caller",
            judge.posts,
            judge.read.len(),
            judge.made_unanswered + judge.unknown_claims,
            judge.unknown_claims
        );
        assert_eq!(drain(&queues[0]).await, left);
        assert_eq!(drain(&queues[1]).await, dead_letters);
        for queue in &queues[..2] {
            assert_eq!(counted(queue).await, []);
        }
        assert!(judge.read.len() > rounds, "too little was posted");
    });
    runtime.shutdown_background();
}

#[test]
fn after_a_node_has_crashed_another_finds_all_or_nothing_of_each_call() {
    another_node_finds_all_or_nothing(single(), 30);
}

#[test]
fn after_a_node_has_crashed_another_finds_all_or_nothing_without_a_set() {
    another_node_finds_all_or_nothing(standalone(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_a_group_does_not_hide_the_queue() {
    let pool = node(single(), &own_database()).await;
    let queue = pool.queue().await;
    queue.group("g", StartPoint::Start).await;
    for n in 0..10 {
        queue.post(vec![message(&n.to_string())]).await;
        let name = "g".parse().unwrap();
        assert!(queue.pool.delete_group(&queue.queue, &name).await.unwrap());
        pool.sweep_all().await;
        assert_eq!(everything(&queue).await.len(), n + 1);
        queue.group("g", StartPoint::Start).await;
    }
}
