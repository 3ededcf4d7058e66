//! Watches on one node that are woken by changes through another.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, doc};
use storage_traits::{
    conformance::{
        TestPool, TestQueue,
        faults::{DEADLINE, ack, claim_spec, keyed, message, nack, through, until_it_works},
    },
    domain::{ClaimSpec, ClaimTerms, StartPoint},
    pool::{Watch, WatchFor},
};
use test_servers::mongo::Mongo;

use crate::{
    pools::{node, node_of},
    support::{own_database, single, standalone, triple},
};

/// Returns a queue as two nodes see it.
async fn two_nodes(server: &Mongo) -> ([TestPool; 2], TestQueue, TestQueue) {
    let name = own_database();
    let nodes = [node(server, &name).await, node(server, &name).await];
    let here = nodes[0].queue().await;
    let there = through(&nodes[1], &here);
    (nodes, here, there)
}

/// How long watches took to be woken, each by another event.
#[derive(Default)]
struct Latencies(Vec<Duration>);

impl Latencies {
    /// Waits until a watch is woken, which takes no more than [`POLLED`].
    async fn assert_woken(&mut self, watch: &mut Watch, what: &str) {
        self.0.push(woken_after(watch, what).await);
    }

    /// Returns the median: on a busy machine a single event may be late.
    fn median(mut self) -> Duration {
        self.0.sort_unstable();
        self.0[self.0.len() / 2]
    }
}

/// Waits until a watch is woken, which takes no more than [`POLLED`].
async fn woken_after(watch: &mut Watch, what: &str) -> Duration {
    let start = Instant::now();
    assert!(watch.wait(DEADLINE).await, "{what}: it is not woken");
    let took = start.elapsed();
    println!("{what}: {took:?}");
    assert!(took < POLLED, "{what}: it took {took:?}");
    took
}

/// Consumes the wake-ups of a watch until none comes for 1.3 seconds.
async fn until_quiet(watch: &mut Watch) {
    while watch.wait(Duration::from_millis(1_300)).await {}
}

/// Returns a claim for this number of seconds.
fn for_seconds(ttl: u64) -> ClaimSpec {
    let terms = ClaimTerms { ttl: Duration::from_secs(ttl), grace: Duration::from_mins(1) };
    ClaimSpec { terms, ..claim_spec(1) }
}

async fn watches_are_woken_by_what_another_node_does(server: &Mongo) -> Duration {
    let mut latencies = Latencies::default();
    let (_nodes, here, there) = two_nodes(server).await;
    let (mut posts, mut claimable) =
        (here.watch(WatchFor::Posts).await, here.watch(WatchFor::Claimable).await);
    tokio::join!(until_quiet(&mut posts), until_quiet(&mut claimable));
    for n in 0..3 {
        there.post_n(1).await;
        latencies.assert_woken(&mut posts, "a post").await;
        woken_after(&mut claimable, "a post").await;
        there.pop(1).await;
        if n < 2 {
            tokio::join!(until_quiet(&mut posts), until_quiet(&mut claimable));
        }
    }

    there.post_n(1).await;
    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.release(claim.id).await;
    latencies.assert_woken(&mut claimable, "a release").await;

    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.acknowledge(claim.id, &[nack(claim.messages[0].id, Duration::ZERO)]).await;
    latencies.assert_woken(&mut claimable, "a failure").await;

    there.pop(1).await;
    there.post(vec![keyed("k", "1"), keyed("k", "2")]).await;
    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    latencies.assert_woken(&mut claimable, "an acknowledgement that makes a key available").await;

    let group = there.group("g", StartPoint::End).await;
    let group_here = TestQueue { queue: group.queue.clone(), ..here.clone() };
    let mut of_group = group_here.watch(WatchFor::Claimable).await;
    until_quiet(&mut of_group).await;
    there.post_n(1).await;
    latencies.assert_woken(&mut of_group, "a post for a group").await;
    until_quiet(&mut of_group).await;
    let name = "g".parse().unwrap();
    assert!(there.pool.delete_group(&there.queue, &name).await.unwrap());
    latencies.assert_woken(&mut of_group, "the end of a group").await;

    tokio::join!(until_quiet(&mut posts), until_quiet(&mut claimable));
    there.pool.drop_queue(&there.queue).await.unwrap();
    latencies.assert_woken(&mut posts, "the end of the queue").await;
    woken_after(&mut claimable, "the end of the queue").await;
    latencies.median()
}

/// A change stream pushes: much sooner than the next poll.
const PUSHED: Duration = Duration::from_millis(300);
/// Maximum for each event: two polls, of one second each, and a margin for a busy machine.
const POLLED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_what_another_node_does_on_a_set() {
    let median = watches_are_woken_by_what_another_node_does(triple()).await;
    assert!(median < PUSHED, "{median:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_what_another_node_does_without_a_set() {
    watches_are_woken_by_what_another_node_does(standalone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_is_woken_when_a_claim_of_another_node_expires() {
    let (_nodes, here, there) = two_nodes(single()).await;
    there.post_n(1).await;
    there.claim(&for_seconds(2)).await.unwrap();
    let mut claimable = here.watch(WatchFor::Claimable).await;
    let start = Instant::now();
    assert!(claimable.wait(DEADLINE).await, "the expiry of a claim: it is not woken");
    assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_outlives_the_server_and_is_woken_by_what_is_posted_then() {
    tokio::join!(
        a_watch_outlives(Mongo::standalone(&[])),
        a_watch_outlives(Mongo::replica_set(1, &[]))
    );
}

async fn a_watch_outlives(server: Mongo) {
    let mut server = server;
    let uri = server.uri();
    let mark = if uri.contains('?') { '&' } else { '?' };
    let uri = format!("{uri}{mark}timeoutMS=2000");
    let (node, other) = (node_of(&uri).await, node_of(&uri).await);
    let here = node.queue().await;
    let there = through(&other, &here);
    let mut watch = here.watch(WatchFor::Posts).await;
    server.kill(0);
    there.try_post(vec![message("1")]).await.unwrap_err();
    server.start(0);
    server.wait_until_whole();
    until_it_works(&there).await;
    assert!(watch.wait(DEADLINE).await, "it is not woken");
    until_quiet(&mut watch).await;
    there.post_n(1).await;
    woken_after(&mut watch, "a post later").await;
}

fn opcounters(server: &Mongo) -> Document {
    let status = server.command_on(0, "admin", &doc! { "serverStatus": 1 });
    status.get_document("opcounters").unwrap().clone()
}

fn count(counters: &Document, name: &str) -> i64 {
    match counters.get(name) {
        Some(Bson::Int32(count)) => i64::from(*count),
        Some(Bson::Int64(count)) => *count,
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn idle_watched_queues_cost_one_query_a_second_at_the_most() {
    tokio::join!(
        idle_watched_queues_cost(Mongo::standalone(&[])),
        idle_watched_queues_cost(Mongo::replica_set(1, &[]))
    );
}

async fn idle_watched_queues_cost(server: Mongo) {
    const SECONDS: u64 = 6;
    let node = node_of(&server.uri()).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let queue = node.queue().await;
        queue.post_n(1).await;
        queue.pop(1).await;
        watches.push(queue.watch(WatchFor::Claimable).await);
    }
    join_all(watches.iter_mut().map(
        async |watch: &mut Watch| {
            while watch.wait(Duration::from_millis(200)).await {}
        },
    ))
    .await;
    let before = opcounters(&server);
    assert!(!watches[0].wait(Duration::from_secs(SECONDS)).await, "it is woken by nothing");
    let after = opcounters(&server);
    let spent = |name| count(&after, name) - count(&before, name);
    let of =
        ["query", "getmore", "insert", "update", "delete", "command"].map(|it| (it, spent(it)));
    println!("20 watched queues cost in {SECONDS} s, {}: {of:?}", server.uri());
    let most = i64::try_from(SECONDS).unwrap() + 2;
    assert!(spent("query") <= most, "{of:?}");
    assert!(spent("getmore") <= 2 * most, "{of:?}");
    assert_eq!((spent("insert"), spent("delete")), (0, 0), "{of:?}");
}
