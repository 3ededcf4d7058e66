//! Watches on one node that are woken by what happens on another.

use std::time::{Duration, Instant};

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

/// A queue as two nodes see it.
async fn two_nodes(server: &Mongo) -> ([TestPool; 2], TestQueue, TestQueue) {
    let name = own_database();
    let nodes = [node(server, &name).await, node(server, &name).await];
    let here = nodes[0].queue().await;
    let there = through(&nodes[1], &here);
    (nodes, here, there)
}

/// Waits until a watch is woken, which takes no more than this.
async fn assert_woken(watch: &mut Watch, within: Duration, what: &str) {
    let start = Instant::now();
    assert!(watch.wait(DEADLINE).await, "{what}: it is not woken");
    println!("{what}: {:?}", start.elapsed());
    assert!(start.elapsed() < within, "{what}: it took {:?}", start.elapsed());
}

/// Forgets that a watch was woken, which it may be more often than necessary.
async fn until_quiet(watch: &mut Watch) {
    while watch.wait(Duration::from_millis(1_300)).await {}
}

/// A claim for so many seconds.
fn for_seconds(ttl: u64) -> ClaimSpec {
    let terms = ClaimTerms { ttl: Duration::from_secs(ttl), grace: Duration::from_mins(1) };
    ClaimSpec { terms, ..claim_spec(1) }
}

async fn watches_are_woken_by_what_another_node_does(server: &Mongo, within: Duration) {
    let (_nodes, here, there) = two_nodes(server).await;
    let (mut posts, mut claimable) =
        (here.watch(WatchFor::Posts).await, here.watch(WatchFor::Claimable).await);
    until_quiet(&mut posts).await;
    until_quiet(&mut claimable).await;
    for n in 0..3 {
        there.post_n(1).await;
        assert_woken(&mut posts, within, "a post").await;
        assert_woken(&mut claimable, within, "a post").await;
        there.pop(1).await;
        if n < 2 {
            until_quiet(&mut posts).await;
            until_quiet(&mut claimable).await;
        }
    }

    there.post_n(1).await;
    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.release(claim.id).await;
    assert_woken(&mut claimable, within, "a release").await;

    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.acknowledge(claim.id, &[nack(claim.messages[0].id, Duration::ZERO)]).await;
    assert_woken(&mut claimable, within, "a failure").await;

    there.pop(1).await;
    there.post(vec![keyed("k", "1"), keyed("k", "2")]).await;
    let claim = there.take(1).await;
    until_quiet(&mut claimable).await;
    there.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    assert_woken(&mut claimable, within, "an acknowledgement that opens a line").await;

    let group = there.group("g", StartPoint::End).await;
    let group_here = TestQueue { queue: group.queue.clone(), ..here.clone() };
    let mut of_group = group_here.watch(WatchFor::Claimable).await;
    until_quiet(&mut of_group).await;
    there.post_n(1).await;
    assert_woken(&mut of_group, within, "a post for a group").await;
    until_quiet(&mut of_group).await;
    let name = "g".parse().unwrap();
    assert!(there.pool.delete_group(&there.queue, &name).await.unwrap());
    assert_woken(&mut of_group, within, "the end of a group").await;

    until_quiet(&mut posts).await;
    until_quiet(&mut claimable).await;
    there.pool.drop_queue(&there.queue).await.unwrap();
    assert_woken(&mut posts, within, "the end of the queue").await;
    assert_woken(&mut claimable, within, "the end of the queue").await;
}

/// Somebody tells: well under a second, but for a busy machine.
const TOLD: Duration = Duration::from_millis(900);
/// Somebody looks every second.
const LOOKED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_what_another_node_does_on_a_set() {
    watches_are_woken_by_what_another_node_does(triple(), TOLD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_are_woken_by_what_another_node_does_without_a_set() {
    watches_are_woken_by_what_another_node_does(standalone(), LOOKED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_is_woken_when_a_claim_of_another_node_lapses() {
    let (_nodes, here, there) = two_nodes(single()).await;
    there.post_n(1).await;
    there.claim(&for_seconds(2)).await.unwrap();
    let mut claimable = here.watch(WatchFor::Claimable).await;
    assert_woken(&mut claimable, Duration::from_secs(4), "the lapse of a claim").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_outlives_the_server_and_is_woken_by_what_is_posted_then() {
    for alone in [true, false] {
        let mut server = if alone { Mongo::standalone(&[]) } else { Mongo::replica_set(1, &[]) };
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
        assert_woken(&mut watch, LOOKED, "a post later").await;
    }
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
    const SECONDS: u64 = 6;
    for alone in [true, false] {
        let server = if alone { Mongo::standalone(&[]) } else { Mongo::replica_set(1, &[]) };
        let node = node_of(&server.uri()).await;
        let mut watches = Vec::new();
        for _ in 0..20 {
            let queue = node.queue().await;
            queue.post_n(1).await;
            queue.pop(1).await;
            watches.push(queue.watch(WatchFor::Claimable).await);
        }
        for watch in &mut watches {
            while watch.wait(Duration::from_millis(200)).await {}
        }
        let before = opcounters(&server);
        assert!(!watches[0].wait(Duration::from_secs(SECONDS)).await, "it is woken by nothing");
        let after = opcounters(&server);
        let spent = |name| count(&after, name) - count(&before, name);
        let of =
            ["query", "getmore", "insert", "update", "delete", "command"].map(|it| (it, spent(it)));
        println!("20 watched queues cost in {SECONDS} s, alone {alone}: {of:?}");
        let most = i64::try_from(SECONDS).unwrap() + 2;
        assert!(spent("query") <= most, "{of:?}");
        assert!(spent("getmore") <= 2 * most, "{of:?}");
        assert_eq!((spent("insert"), spent("delete")), (0, 0), "{of:?}");
    }
}
