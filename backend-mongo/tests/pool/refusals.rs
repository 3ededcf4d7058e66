//! A server that rejects commands, or carries them out but reports an error, or carries them out
//! too late.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use storage_traits::{
    conformance::{
        TestPool, TestQueue,
        faults::{
            DEADLINE, ack, answered, claim_spec, deduplicated, everything, keyed, list_all,
            message, text,
        },
    },
    domain::AckResult,
    pool::ListSpec,
};
use test_servers::mongo::Mongo;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::interval,
};

use crate::{pools::node_of, support::own_database};

/// By how much a call may exceed its timeout on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// How many servers these tests use. A server has one failpoint of this kind, and the tests mostly
/// wait, so they run at the same time on several servers.
const SERVERS: usize = 5;

/// A replica set of one member, reserved for one test case.
struct Lent {
    server: &'static Mongo,
    _permit: SemaphorePermit<'static>,
}

/// Reserves a server, and starts it if none is free.
async fn lend() -> Lent {
    static PERMITS: Semaphore = Semaphore::const_new(SERVERS);
    let permit = PERMITS.acquire().await.unwrap();
    let free = free_servers().lock().unwrap().pop();
    let server = match free {
        Some(server) => server,
        None => tokio::task::spawn_blocking(|| &*Box::leak(Box::new(Mongo::replica_set(1, &[]))))
            .await
            .unwrap(),
    };
    Lent { server, _permit: permit }
}

fn free_servers() -> &'static Mutex<Vec<&'static Mongo>> {
    static FREE: Mutex<Vec<&'static Mongo>> = Mutex::new(Vec::new());
    &FREE
}

impl Drop for Lent {
    fn drop(&mut self) {
        configure(self.server, "off", doc! {});
        // The permit is returned after this, when the fields are dropped.
        free_servers().lock().unwrap().push(self.server);
    }
}

/// A node whose commands fail on its server.
struct Victim {
    name: String,
    pool: TestPool,
    queue: TestQueue,
    // The last field, so that the server is free only when the node is closed.
    lent: Lent,
}

fn configure(server: &Mongo, mode: impl Into<Bson>, data: Document) {
    let fail = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    server.command_on(0, "admin", &fail);
}

impl Victim {
    async fn new(timeout: Duration, options: &str) -> Self {
        static VICTIMS: AtomicUsize = AtomicUsize::new(0);
        let lent = lend().await;
        let name = format!("victim-{}", VICTIMS.fetch_add(1, Ordering::Relaxed));
        let uri = format!(
            "{}&appName={name}{options}&timeoutMS={}",
            lent.server.uri_of(&own_database()),
            timeout.as_millis()
        );
        let pool = node_of(&uri).await;
        let queue = pool.queue().await;
        Self { name, pool, queue, lent }
    }

    /// Lets commands with this name fail.
    fn inject(&self, command: &str, mode: impl Into<Bson>, how: Document) {
        let mut data = doc! { "failCommands": [command], "appName": &self.name };
        data.extend(how);
        configure(self.lent.server, mode, data);
    }

    fn stop_injecting(&self) {
        configure(self.lent.server, "off", doc! {});
    }

    /// Waits until the server executes no write of the node.
    async fn until_idle(&self) {
        let admin = Client::with_uri_str(self.lent.server.uri()).await.unwrap().database("admin");
        let writes = ["findAndModify", "insert", "update", "delete"];
        let writes = writes.map(|verb| doc! { format!("command.{verb}"): { "$exists": true } });
        let all = [
            doc! { "$currentOp": { "allUsers": true } },
            doc! { "$match": { "appName": &self.name, "$or": writes.to_vec() } },
        ];
        let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
        loop {
            let mut left = admin.aggregate(all.clone()).await.unwrap();
            if !left.advance().await.unwrap() {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "a command does not end");
            ticks.tick().await;
        }
    }
}

fn bodies(messages: &[storage_traits::domain::Message]) -> Vec<String> {
    messages.iter().map(text).collect()
}

async fn held(queue: &TestQueue) -> usize {
    let claimed = ListSpec { include_free: false, include_delayed: false, ..list_all(1_000) };
    queue.list(&claimed).await.items.len()
}

/// Checks the contents of a queue, and that its counters match.
async fn assert_holds(queue: &TestQueue, expected: &[String]) {
    let mut found = bodies(&everything(queue).await);
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let (free, claimed) = queue.counts().await;
    assert_eq!(free + claimed, expected.len() as u64, "{free} are free, {claimed} claimed");
    assert_eq!(claimed, held(queue).await as u64);
}

fn ways() -> Vec<(&'static str, Document)> {
    let error = |code: i32| doc! { "errorCode": code };
    vec![
        ("a conflict", error(112)),
        ("a shutdown", error(11_600)),
        ("no primary", error(10_107)),
        ("a cut connection", doc! { "closeConnection": true }),
        ("doubt", doc! { "writeConcernError": { "code": 64, "errmsg": "in doubt" } }),
    ]
}

const COMMANDS: [&str; 5] = ["findAndModify", "insert", "update", "delete", "find"];

/// Runs a case for each kind of failure, all at the same time, each on a server of its own.
async fn in_all_ways<F: Future<Output = ()>>(case: impl Fn(&'static str, Document) -> F) {
    join_all(ways().into_iter().map(|(way, how)| case(way, how))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_that_fail_at_first_take_effect_once() {
    // After some errors the driver waits for a second before it uses the server again.
    let cases = ways()
        .into_iter()
        .flat_map(|(way, how)| COMMANDS.map(|command| refused_at_first(way, how.clone(), command)));
    join_all(cases).await;
}

async fn refused_at_first(way: &str, how: Document, command: &str) {
    if way == "doubt" && command == "find" {
        return;
    }
    let victim = Victim::new(Duration::from_secs(30), "").await;
    let queue = &victim.queue;
    let mut expected = Vec::new();
    let mut number = 0;
    let start = Instant::now();
    let mut new = |n: usize| -> Vec<String> {
        number += n;
        (number - n..number).map(|n| format!("\"{n}\"")).collect()
    };
    let (plain, compared, keys) = (new(3), new(2), new(2));
    victim.inject(command, doc! { "times": 2 }, how.clone());
    queue.post(plain.iter().map(|body| message(body)).collect()).await;
    victim.inject(command, doc! { "times": 2 }, how.clone());
    queue.post(compared.iter().map(|it| deduplicated(it.trim_matches('"'), it)).collect()).await;
    queue.post(keys.iter().map(|body| keyed("k", body)).collect()).await;
    expected.extend([plain, compared, keys].concat());
    victim.inject(command, doc! { "times": 2 }, how.clone());
    let claim = queue.take(4).await;
    assert_eq!(claim.messages.len(), 4, "{way}, {command}");
    victim.inject(command, doc! { "times": 2 }, how.clone());
    let (first, last) = claim.messages.split_at(2);
    let said: Vec<_> = first.iter().map(|it| ack(it.id)).collect();
    let answers = queue.acknowledge(claim.id, &said).await;
    assert_eq!(answers, [AckResult::Applied; 2], "{way}, {command}");
    expected.retain(|body| !bodies(first).contains(body));
    victim.inject(command, doc! { "times": 2 }, how.clone());
    let held = queue.get_claim(claim.id).await.unwrap();
    assert_eq!(bodies(&held.messages), bodies(last), "{way}, {command}");
    queue.release(claim.id).await;
    victim.inject(command, doc! { "times": 2 }, how.clone());
    let popped = queue.pop(1).await;
    assert_eq!(popped.len(), 1, "{way}, {command}");
    expected.retain(|body| !bodies(&popped).contains(body));
    victim.stop_injecting();
    println!("{way} of {command}: {:?}", start.elapsed());
    assert_holds(queue, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_whose_commands_always_fail_end_in_time_and_take_effect_at_most_once() {
    in_all_ways(always_refused).await;
}

async fn always_refused(way: &'static str, how: Document) {
    let timeout = Duration::from_secs(1);
    let victim = Victim::new(timeout, "").await;
    let queue = &victim.queue;
    let mut number = 0;
    let mut slowest = Duration::ZERO;
    for command in COMMANDS {
        let body = format!("\"{number}\"");
        let (kept, unsure, unsure_too) =
            (format!("\"{number}-0\""), format!("\"{number}-1\""), format!("\"{number}-2\""));
        number += 1;
        queue.post(vec![message(&body), message(&kept)]).await;
        let claim = queue.take(1).await;
        victim.inject(command, "alwaysOn", how.clone());
        let start = Instant::now();
        let posts =
            (queue.try_post(vec![message(&unsure)]), queue.try_post(vec![keyed("k", &unsure_too)]));
        let two = claim_spec(2);
        let acknowledgement = [ack(claim.messages[0].id)];
        let (posted, appended, claimed, acknowledged, checked) = tokio::join!(
            posts.0,
            posts.1,
            queue.try_claim(&two),
            queue.pool.acknowledge(&queue.queue, claim.id, &acknowledgement, queue.now()),
            victim.pool.pool.check(),
        );
        let took = start.elapsed();
        slowest = slowest.max(took);
        assert!(took < 3 * timeout + SLACK, "{way} of {command}: it took {took:?}");
        let posted = answered(posted).is_some();
        let appended = answered(appended).is_some();
        let claimed = answered(claimed);
        let acknowledged = answered(acknowledged);
        answered(checked);
        if command == "findAndModify" {
            assert!(!posted && !appended && acknowledged.is_none(), "{way}: it was not refused");
        }
        victim.stop_injecting();

        // The pool recovers by itself.
        let again = format!("\"{number}-again\"");
        let start = Instant::now();
        queue.post(vec![message(&again)]).await;
        victim.pool.pool.check().await.unwrap();
        assert!(start.elapsed() < timeout + SLACK, "{way} of {command}: {:?}", start.elapsed());
        victim.until_idle().await;
        let all = bodies(&everything(queue).await);
        let count = |body: &String| all.iter().filter(|it| *it == body).count();
        assert_eq!((count(&kept), count(&again)), (1, 1), "{way} of {command}");
        assert!(count(&unsure) <= 1 && count(&unsure_too) <= 1, "{way} of {command}: {all:?}");
        assert!(!posted || count(&unsure) == 1, "{way} of {command}: lost");
        assert!(!appended || count(&unsure_too) == 1, "{way} of {command}: lost");
        if let Some(answers) = acknowledged {
            assert_eq!(answers, [AckResult::Applied]);
            assert_eq!(count(&body), 0, "{way} of {command}: it is back");
        }
        assert!(count(&body) <= 1);
        if let Some(Some(claim)) = claimed {
            let found = queue.get_claim(claim.id).await.unwrap();
            assert_eq!(found.messages.len(), claim.messages.len(), "{way} of {command}");
        }
        assert_holds(queue, &all).await;
        // Messages of a claim whose call failed are free when the claim expires.
        queue.advance(Duration::from_mins(2));
        let claim = queue.take(100).await;
        let mut taken = bodies(&claim.messages);
        let keyed = claim.messages.iter().filter(|it| it.ordering_key.is_some()).count();
        assert!(keyed <= 1);
        taken.sort();
        let mut all = all;
        all.sort();
        assert_eq!(taken, all, "{way} of {command}");
        let said: Vec<_> = claim.messages.iter().map(|it| ack(it.id)).collect();
        queue.acknowledge(claim.id, &said).await;
        assert_holds(queue, &[]).await;
    }
    println!("{way}: the slowest calls took {slowest:?}");
}

/// Delays the first command with this name until long after the node has given it up and sent it
/// again, as when packets are lost for a while.
async fn late(options: &str, command: &str, work: impl AsyncFnOnce(&TestQueue)) -> Vec<String> {
    let victim = Victim::new(Duration::from_secs(4), options).await;
    let queue = &victim.queue;
    queue.post(vec![message("\"before\"")]).await;
    let how = doc! { "blockConnection": true, "blockTimeMS": 5_000 };
    victim.inject(command, doc! { "times": 1 }, how);
    let start = Instant::now();
    work(queue).await;
    // After these posts the node has recorded the outcome of the earlier ones.
    for n in 0..10 {
        queue.post(vec![message(&format!("\"after {n}\""))]).await;
    }
    while !queue.pop(100).await.is_empty() {}
    queue.post(vec![message("\"last\"")]).await;
    victim.until_idle().await;
    assert!(start.elapsed().as_secs() >= 5, "{command}: nothing came late");
    assert_eq!(queue.counts().await, (1, 0), "late: {command}");
    let left = bodies(&everything(queue).await);
    assert_eq!(queue.take(10).await.messages.len(), 1);
    left
}

async fn post_two(queue: &TestQueue) {
    queue.post(vec![message("\"a\""), message("\"b\"")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_post_that_arrives_twice_is_stored_once() {
    let commands = ["findAndModify", "insert", "update"];
    join_all(commands.map(async |command| {
        assert_eq!(late("", command, post_two).await, ["\"last\""], "{command}");
    }))
    .await;
}

/// Without retryable writes the server does not detect that a command was sent twice; neither does
/// a standalone server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_post_that_arrives_twice_is_stored_once_without_retryable_writes() {
    let commands = ["findAndModify", "insert", "update"];
    join_all(commands.map(async |command| {
        let left = late("&retryWrites=false", command, post_two).await;
        assert_eq!(left, ["\"last\""], "{command}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_unit_of_work_that_arrives_twice_takes_effect_once() {
    let commands = ["findAndModify", "insert", "update", "delete"];
    join_all(commands.map(async |command| {
        let step = async |queue: &TestQueue| {
            queue.post(vec![deduplicated("a", "\"a\""), keyed("k", "\"b\"")]).await;
            let claim = queue.take(2).await;
            queue.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
            queue.release(claim.id).await;
        };
        assert_eq!(late("&retryWrites=false", command, step).await, ["\"last\""], "{command}");
    }))
    .await;
}
