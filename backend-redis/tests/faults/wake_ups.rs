//! Watches on one node that are woken by calls on another.

use std::time::{Duration, Instant};

use storage_traits::{
    conformance::{
        TestPool, TestQueue,
        faults::{DEADLINE, ack, answered, claim_spec, keyed, message, through, until_it_works},
    },
    domain::{ClaimSpec, ClaimTerms},
    pool::{Watch, WatchFor},
};
use test_servers::redis::{Cluster, Redis};
use tokio::time::interval;

use crate::node::{MAX_CALL_TIME, open};

/// Opens two nodes; returns the first, and a queue through each of them.
async fn two_nodes(uri: &str) -> (TestPool, TestQueue, TestQueue) {
    let (here, there) = (open(uri).await, open(uri).await);
    let queue = here.queue().await;
    let same = through(&there, &queue);
    (here, queue, same)
}

/// Waits until a watch is woken, and checks that it took no longer than `within` plus a margin.
async fn assert_woken(watch: &mut Watch, within: Duration, what: &str) {
    let start = Instant::now();
    assert!(watch.wait(DEADLINE).await, "{what}: it is not woken");
    // The margin is for a busy machine.
    assert!(start.elapsed() < within + MAX_CALL_TIME, "{what}: it took {:?}", start.elapsed());
}

/// Returns a claim for this number of seconds.
fn for_seconds(ttl: u64) -> ClaimSpec {
    let terms = ClaimTerms { ttl: Duration::from_secs(ttl), grace: Duration::from_mins(1) };
    ClaimSpec { terms, ..claim_spec(1) }
}

async fn watches_are_woken_by_calls_of_another_node(uri: &str) {
    let (_node, here, there) = two_nodes(uri).await;
    let at_once = Duration::ZERO;
    let (mut posts, mut claimable) =
        (here.watch(WatchFor::Posts).await, here.watch(WatchFor::Claimable).await);
    there.post_n(1).await;
    assert_woken(&mut posts, at_once, "a post").await;
    assert_woken(&mut claimable, at_once, "a post").await;

    let claim = there.take(1).await;
    let mut claimable = here.watch(WatchFor::Claimable).await;
    there.release(claim.id).await;
    assert_woken(&mut claimable, at_once, "a release").await;

    drop(claimable);
    let claim = there.claim(&for_seconds(1)).await.unwrap();
    let mut claimable = here.watch(WatchFor::Claimable).await;
    assert_woken(&mut claimable, Duration::from_secs(1), "the expiry of a claim").await;

    // The clock of the test stands still, so for its calls the claim has not expired.
    there.release(claim.id).await;
    there.pop(1).await;
    there.post(vec![keyed("k", "1"), keyed("k", "2")]).await;
    let claim = there.take(1).await;
    let mut claimable = here.watch(WatchFor::Claimable).await;
    let done = [ack(claim.messages[0].id)];
    there.acknowledge(claim.id, &done).await;
    assert_woken(&mut claimable, at_once, "an acknowledgement that makes a key available").await;

    let (mut posts, mut claimable) =
        (here.watch(WatchFor::Posts).await, here.watch(WatchFor::Claimable).await);
    there.pool.drop_queue(&there.queue).await.unwrap();
    assert_woken(&mut posts, at_once, "the end of the queue").await;
    assert_woken(&mut claimable, at_once, "the end of the queue").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_calls_of_another_node_on_one_server() {
    let server = Redis::start(&[]);
    watches_are_woken_by_calls_of_another_node(&server.uri()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_calls_of_another_node_on_a_cluster() {
    let servers = Cluster::start(&[]);
    watches_are_woken_by_calls_of_another_node(&servers.uri()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_whose_connection_is_lost_is_woken_by_posts() {
    let server = Redis::start(&[]);
    let (_node, here, there) = two_nodes(&server.uri()).await;
    let mut watch = here.watch(WatchFor::Posts).await;
    for _ in 0..3 {
        // The post comes while the node is not subscribed, or just after it has subscribed again.
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        there.post_n(1).await;
        assert_woken(&mut watch, Duration::from_secs(1), "a post meanwhile").await;
        until_quiet(&server, &mut watch).await;
        there.post_n(1).await;
        assert_woken(&mut watch, Duration::ZERO, "a post later").await;
    }
}

/// Waits until a node is subscribed again, and consumes the wake-ups of a watch.
async fn until_quiet(server: &Redis, watch: &mut Watch) {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    while server.command(&["PUBSUB", "SHARDCHANNELS"]).is_empty() {
        assert!(start.elapsed() < DEADLINE, "no node subscribes again");
        ticks.tick().await;
    }
    while watch.wait(Duration::from_millis(300)).await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_survives_a_restart_of_the_server_and_is_woken_by_posts() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (_node, here, there) = two_nodes(&server.uri()).await;
    let mut watch = here.watch(WatchFor::Posts).await;
    server.kill();
    assert_eq!(answered(there.try_post(vec![message("1")]).await), None);
    server.restart();
    until_it_works(&there).await;
    assert_woken(&mut watch, Duration::from_secs(1), "a post").await;
    until_quiet(&server, &mut watch).await;
    there.post_n(1).await;
    assert_woken(&mut watch, Duration::ZERO, "a post later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscriptions_to_dropped_queues_end() {
    let server = Redis::start(&[]);
    let node = open(&server.uri()).await;
    for _ in 0..3 {
        let queue = node.queue().await;
        let mut watch = queue.watch(WatchFor::Claimable).await;
        node.pool.drop_queue(&queue.queue).await.unwrap();
        assert_woken(&mut watch, Duration::ZERO, "a drop").await;
    }
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
    while !server.command(&["PUBSUB", "SHARDCHANNELS"]).trim().is_empty() {
        assert!(start.elapsed() < DEADLINE, "the node is still subscribed");
        ticks.tick().await;
    }
}
