//! Two nodes that work on the same queue of a replica set at the same time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use storage_traits::{
    conformance::{
        TestPool, TestQueue,
        faults::{
            ack, claim_spec, claim_with_dead_letter, counted, deduplicated, everything, keyed,
            limit, list_visible, message, nack, retained, soon, text, through,
        },
    },
    domain::{AckResult, ClaimId, Message, NewMessage, StartPoint},
    pool::{ListSpec, RedriveSpec},
};
use tokio::task::JoinSet;

use crate::{
    pools::node,
    support::{own_database, triple},
};

/// Returns a queue as two nodes see it.
async fn two_nodes() -> ([TestPool; 2], [TestQueue; 2]) {
    let name = own_database();
    let nodes = [node(triple(), &name).await, node(triple(), &name).await];
    let queue = nodes[0].queue().await;
    let same = through(&nodes[1], &queue);
    (nodes, [queue, same])
}

/// Runs `n` tasks on each node, and returns their results.
async fn on_each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    queues: &[TestQueue; 2],
    n: usize,
    task: impl Fn(TestQueue, usize) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for number in 0..2 * n {
        tasks.spawn(task(queues[number % 2].clone(), number));
    }
    tasks.join_all().await
}

/// Checks on each node that the counters of a queue match its contents.
async fn assert_counted(queues: &[TestQueue; 2]) {
    for queue in queues {
        counted(queue).await;
    }
}

fn bodies(messages: &[Message]) -> Vec<String> {
    messages.iter().map(text).collect()
}

/// Checks that `found` contains each of `expected` once, in any order.
#[track_caller]
fn assert_once(mut found: Vec<String>, mut expected: Vec<String>) {
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected {
        return;
    }
    let count = |all: &[String]| {
        let mut counts = BTreeMap::new();
        for body in all {
            *counts.entry(body.clone()).or_insert(0_usize) += 1;
        }
        counts
    };
    let (found, expected) = (count(&found), count(&expected));
    let lost: Vec<_> = expected.iter().filter(|(body, _)| !found.contains_key(*body)).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
    let strange: Vec<_> = found.iter().filter(|(body, _)| !expected.contains_key(*body)).collect();
    panic!("lost: {lost:?}\ndoubled: {doubled:?}\nstrange: {strange:?}");
}

/// Returns the messages of one round of a writer: most are plain, some have a key, a deduplication
/// id or retention.
fn batch(number: usize, n: usize) -> Vec<NewMessage> {
    let body = |part: usize| format!("\"{number}-{}\"", 10 * n + part);
    match (number / 2 + n) % 4 {
        0 => vec![deduplicated(&format!("{number}-{n}"), &body(0)), message(&body(1))],
        1 => vec![message(&body(0)), message(&body(1)), message(&body(2))],
        2 if number.is_multiple_of(4) => vec![keyed("k", &body(0)), retained(&body(1))],
        _ => vec![message(&body(0))],
    }
}

const WRITERS: usize = 4;

/// Posts from writers on both nodes, and returns the bodies by sequence.
async fn write(queues: &[TestQueue; 2], rounds: usize) -> BTreeMap<i64, String> {
    let written = on_each(queues, WRITERS, |queue, number| async move {
        let mut written = Vec::new();
        for n in 0..rounds {
            let batch = batch(number, n);
            let bodies: Vec<_> =
                batch.iter().map(|it| String::from_utf8(it.body.as_bytes().to_vec())).collect();
            let ids = queue.post(batch).await;
            assert!(
                ids.windows(2).all(|two| two[1].sequence.get() == two[0].sequence.get() + 1),
                "a batch is torn: {ids:?}"
            );
            for (id, body) in ids.iter().zip(bodies) {
                written.push((id.sequence.get(), body.unwrap()));
            }
        }
        assert!(written.is_sorted(), "a writer's messages are not in its order");
        written
    });
    let written = written.await.concat();
    let count = written.len();
    let by_sequence: BTreeMap<_, _> = written.into_iter().collect();
    assert_eq!(by_sequence.len(), count, "a position was given twice");
    by_sequence
}

/// Reads page by page, until all is written and no message is left.
async fn read(queue: TestQueue, written: Arc<AtomicBool>) -> Vec<(i64, String)> {
    let mut seen: Vec<(i64, String)> = Vec::new();
    let mut after = None;
    loop {
        let last_look = written.load(Ordering::SeqCst);
        let page = queue.list(&ListSpec { after, ..list_visible(7) }).await;
        if last_look && page.items.is_empty() {
            return seen;
        }
        after = page.items.last().map(|message| message.id.sequence).or(after);
        seen.extend(page.items.iter().map(|message| (message.id.sequence.get(), text(message))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_two_nodes_miss_nothing_of_what_two_nodes_post() {
    let (_nodes, queues) = two_nodes().await;
    let written = Arc::new(AtomicBool::new(false));
    let readers = queues.clone().map(|queue| tokio::spawn(read(queue, Arc::clone(&written))));
    let posted = write(&queues, 60).await;
    written.store(true, Ordering::SeqCst);
    let expected: Vec<_> = posted.into_iter().collect();
    for reader in readers {
        let seen = soon(reader).await.unwrap();
        let missing: Vec<_> = expected.iter().filter(|it| !seen.contains(it)).collect();
        assert!(missing.is_empty(), "{} were missed: {missing:?}", missing.len());
        assert_eq!(seen, expected);
    }
    assert_counted(&queues).await;
    assert_eq!(queues[0].counts().await.0, expected.len() as u64);
}

/// The messages that consumers have completed.
#[derive(Default)]
struct Completed {
    bodies: Mutex<Vec<String>>,
    count: AtomicUsize,
}

impl Completed {
    fn add(&self, bodies: Vec<String>) {
        self.count.fetch_add(bodies.len(), Ordering::SeqCst);
        self.bodies.lock().unwrap().extend(bodies);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.bodies.lock().unwrap())
    }
}

/// Claims, acknowledges, rejects, releases and pops until all messages are completed.
async fn consume(queue: TestQueue, number: usize, completed: Arc<Completed>, all: usize) {
    for n in number.. {
        if completed.count.load(Ordering::SeqCst) >= all {
            return;
        }
        if n % 4 == 0 {
            let popped = queue.pop(3).await;
            completed.add(bodies(&popped));
            continue;
        }
        let Some(claim) = queue.claim(&claim_spec(5)).await else { continue };
        if n % 4 == 1 {
            queue.release(claim.id).await;
            continue;
        }
        let said: Vec<_> = (0..)
            .zip(&claim.messages)
            .map(|(i, it)| if (i + n) % 5 == 0 { nack(it.id, Duration::ZERO) } else { ack(it.id) })
            .collect();
        let answers = queue.acknowledge(claim.id, &said).await;
        assert!(answers.iter().all(|answer| *answer == AckResult::Applied), "{answers:?}");
        let is_done = |i: &usize| !(i + n).is_multiple_of(5);
        let done = (0..claim.messages.len()).filter(is_done);
        completed.add(done.map(|i| text(&claim.messages[i])).collect());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_on_two_nodes_handle_each_message_once() {
    const POSTERS: usize = 2;
    const ROUNDS: usize = 60;
    let (_nodes, queues) = two_nodes().await;
    let completed = Arc::new(Completed::default());
    let consumers = tokio::spawn({
        let (queues, completed) = (queues.clone(), Arc::clone(&completed));
        async move {
            let consume =
                |queue, n| consume(queue, n, Arc::clone(&completed), 2 * POSTERS * ROUNDS);
            on_each(&queues, 3, consume).await;
        }
    });
    let posted = on_each(&queues, POSTERS, |queue, number| async move {
        let mut posted = Vec::new();
        for n in 0..ROUNDS {
            let body = format!("\"{number}-{n}\"");
            queue.post(vec![message(&body)]).await;
            posted.push(body);
        }
        posted
    });
    let posted = posted.await.concat();
    let consumed = tokio::time::timeout(Duration::from_mins(1), consumers).await;
    if consumed.is_err() {
        assert_counted(&queues).await;
        assert_once(completed.take(), posted);
        panic!("the consumers do not end");
    }
    consumed.unwrap().unwrap();
    assert_once(completed.take(), posted);
    assert_counted(&queues).await;
    assert_eq!(queues[0].counts().await, (0, 0));
}

/// The claim that holds each key.
#[derive(Default)]
struct Holders(Mutex<HashMap<String, ClaimId>>);

fn keys(messages: &[Message]) -> BTreeSet<String> {
    let keys = messages.iter().filter_map(|message| message.ordering_key.as_ref());
    keys.map(|key| key.as_str().to_owned()).collect()
}

impl Holders {
    fn hold(&self, claim: &storage_traits::domain::Claim) {
        let mut holders = self.0.lock().unwrap();
        for key in keys(&claim.messages) {
            let before = holders.insert(key.clone(), claim.id);
            assert_eq!(before, None, "two claims hold {key}");
        }
    }

    /// Called before the claim is released, so that the next claim of the key never comes too
    /// early.
    fn let_go(&self, claim: &storage_traits::domain::Claim) {
        let mut holders = self.0.lock().unwrap();
        for key in keys(&claim.messages) {
            assert_eq!(holders.remove(&key), Some(claim.id), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_a_key_are_claimed_in_order_by_one_claim_at_a_time_on_two_nodes() {
    const POSTERS: usize = 2;
    const ROUNDS: usize = 40;
    let (_nodes, queues) = two_nodes().await;
    let all = 2 * POSTERS * ROUNDS;
    let (holders, completed) = (Arc::new(Holders::default()), Arc::new(Completed::default()));
    let consumers = tokio::spawn({
        let (queues, completed) = (queues.clone(), Arc::clone(&completed));
        async move {
            on_each(&queues, 3, |queue, number| {
                let (holders, completed) = (Arc::clone(&holders), Arc::clone(&completed));
                async move {
                    for n in number.. {
                        if completed.count.load(Ordering::SeqCst) >= all {
                            return;
                        }
                        let Some(claim) = queue.claim(&claim_spec(4)).await else { continue };
                        holders.hold(&claim);
                        if n % 5 == 0 {
                            holders.let_go(&claim);
                            queue.release(claim.id).await;
                            continue;
                        }
                        // In order, and before another consumer can claim the next message.
                        let said: Vec<_> = claim.messages.iter().map(|it| ack(it.id)).collect();
                        completed.bodies.lock().unwrap().extend(bodies(&claim.messages));
                        holders.let_go(&claim);
                        let answers = queue.acknowledge(claim.id, &said).await;
                        assert!(answers.iter().all(|it| *it == AckResult::Applied));
                        completed.count.fetch_add(said.len(), Ordering::SeqCst);
                    }
                }
            })
            .await;
        }
    });
    let posted = on_each(&queues, POSTERS, |queue, number| async move {
        let mut posted = Vec::new();
        for n in 0..ROUNDS {
            // Each poster uses a key of its own, so that the expected order is known.
            let body = format!("\"{number}-{n:03}\"");
            queue.post(vec![keyed(&format!("k{number}"), &body)]).await;
            posted.push(body);
        }
        posted
    });
    let posted = posted.await.concat();
    let consumed = tokio::time::timeout(Duration::from_mins(1), consumers).await;
    let completed = completed.take();
    if consumed.is_err() {
        assert_counted(&queues).await;
        assert_once(completed, posted);
        panic!("the consumers do not end");
    }
    consumed.unwrap().unwrap();
    for poster in 0..2 * POSTERS {
        let own: Vec<_> =
            completed.iter().filter(|body| body.starts_with(&format!("\"{poster}-"))).collect();
        assert!(own.is_sorted(), "out of order: {own:?}");
    }
    assert_once(completed, posted);
    assert_counted(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deduplication_id_that_two_nodes_post_is_stored_once() {
    const IDS: usize = 100;
    let (_nodes, queues) = two_nodes().await;
    let posted = on_each(&queues, 2, |queue, number| async move {
        let mut posted = Vec::new();
        for n in 0..IDS {
            let messages =
                vec![deduplicated(&n.to_string(), &format!("\"{n}\"")), message("\"plain\"")];
            let answer = queue.try_post(messages).await.unwrap();
            posted.push((n, answer[0].id, answer[0].duplicate));
            if number < 2 {
                queue.post_n(1).await;
            }
        }
        posted
    });
    let posted = posted.await.concat();
    let all: HashMap<_, _> =
        everything(&queues[0]).await.into_iter().map(|message| (message.id, message)).collect();
    for n in 0..IDS {
        let own: Vec<_> = posted.iter().filter(|it| it.0 == n).collect();
        let firsts = own.iter().filter(|it| !it.2).count();
        assert_eq!(firsts, 1, "{n} was stored {firsts} times: {own:?}");
        assert!(own.iter().all(|it| it.1 == own[0].1), "the answers differ: {own:?}");
        assert_eq!(all.get(&own[0].1).map(text), Some(format!("\"{n}\"")));
    }
    assert_eq!(all.len(), IDS + 4 * IDS + 2 * IDS);
    assert_counted(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letters_that_two_nodes_send_arrive_once_and_come_back_once() {
    const COUNT: usize = 150;
    let (nodes, queues) = two_nodes().await;
    let dlq = nodes[0].queue().await;
    let dlqs = [dlq.clone(), through(&nodes[1], &dlq)];
    let posted: Vec<_> = (0..COUNT).map(|n| format!("\"{n}\"")).collect();
    queues[0].post(posted.iter().map(|body| message(body)).collect()).await;
    on_each(&queues, 3, |queue, _| {
        let dlq = dlq.clone();
        async move {
            while let Some(claim) = queue.claim(&claim_with_dead_letter(7, 2, &dlq)).await {
                queue.release(claim.id).await;
            }
        }
    })
    .await;
    // A claim that returned no message may have moved dead letters that are not delivered yet.
    for node in &nodes {
        node.sweep_all().await;
    }
    assert_eq!(everything(&queues[0]).await, []);
    let dead_letters = everything(&dlq).await;
    assert!(dead_letters.iter().all(|dead_letter| dead_letter.origin.is_some()));
    assert_once(bodies(&dead_letters), posted.clone());
    assert_counted(&dlqs).await;

    on_each(&dlqs, 2, |dlq, _| async move {
        let spec = RedriveSpec { limit: limit(9), rate: None };
        while dlq.pool.redrive(&dlq.queue, spec, dlq.now()).await.unwrap().moved > 0 {}
    })
    .await;
    for node in &nodes {
        node.sweep_all().await;
    }
    assert_eq!(everything(&dlq).await, []);
    assert_once(bodies(&everything(&queues[1]).await), posted);
    assert_counted(&queues).await;
    assert_counted(&dlqs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_that_one_node_creates_while_another_posts_miss_nothing() {
    const GROUPS: usize = 8;
    let (_nodes, queues) = two_nodes().await;
    let [here, there] = queues.clone();
    let created = tokio::spawn(async move {
        let mut groups = Vec::new();
        for n in 0..GROUPS {
            let start = if n % 2 == 0 { StartPoint::Start } else { StartPoint::End };
            groups.push((n, here.group(&format!("g{n}"), start).await));
        }
        groups
    });
    write(&[there.clone(), there], 40).await;
    let groups = created.await.unwrap();
    let all: Vec<_> = everything(&queues[0]).await.iter().map(|it| (it.id, text(it))).collect();
    for (n, group) in groups {
        let own: Vec<_> = everything(&group).await.iter().map(|it| (it.id, text(it))).collect();
        if n % 2 == 0 {
            assert_eq!(own, all, "the group {n} has not all");
        } else {
            assert!(all.ends_with(&own), "the group {n} has gaps");
        }
        let other = TestQueue { queue: group.queue.clone(), ..queues[1].clone() };
        assert_counted(&[group, other]).await;
    }
    assert_counted(&queues).await;
}
