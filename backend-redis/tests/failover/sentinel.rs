//! Failover with Sentinel under load.

use std::time::Duration;

use storage_traits::conformance::{
    TestQueue,
    faults::{Load, Story, answered, everything, message, through, until_it_works},
};
use test_servers::redis::{Redis, Sentinel};
use tokio::time::Instant;

use crate::{
    node::{MAX_CALL_TIME, open},
    wait_for_replicas,
};

const REPLICAS: usize = 2;
/// Time that a busy machine may take to replicate a post, and until its client records the
/// acknowledgement.
const LAG: Duration = Duration::from_millis(500);

fn replicas(servers: &Sentinel) -> impl Iterator<Item = &Redis> {
    let master = servers.master();
    servers.servers().iter().filter(move |server| server.port() != master)
}

/// Times and results of a failover.
struct Failover {
    /// When the replicas were disconnected.
    cut_off: Instant,
    /// When the master was killed.
    killed: Instant,
    story: Story,
}

/// Kills the master under load, after the replicas were disconnected from it and `until` has
/// returned. Returns after the load has used the new master for a while.
async fn fail_over(
    servers: &mut Sentinel,
    load: Load,
    queue: &TestQueue,
    until: impl AsyncFnOnce(&Load),
) -> Failover {
    wait_for_replicas(servers.server(servers.master()), queue, REPLICAS);
    load.acknowledges(300).await;
    let cut_off = Instant::now();
    replicas(servers).for_each(Redis::pause);
    // Otherwise they would still receive what is in the sockets.
    servers.server(servers.master()).command(&["CLIENT", "KILL", "TYPE", "replica"]);
    until(&load).await;
    let (old, killed) = (servers.kill_master(), Instant::now());
    servers.servers().iter().filter(|it| it.port() != old).for_each(Redis::resume);
    let new = servers.wait_for_failover(old);
    load.acknowledges(200).await;
    // The old master is a replica when it is back.
    servers.restart(old);
    servers.wait_until_whole();
    assert_eq!(servers.master(), new);
    load.acknowledges(200).await;
    Failover { cut_off, killed, story: load.stop().await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_loses_only_what_no_replica_had() {
    let mut servers = Sentinel::start(REPLICAS, &[]);
    let pool = open(&servers.uri()).await;
    let queues = [pool.queue().await, pool.queue().await];
    let load = Load::start(&queues, 1);
    let until = async |load: &Load| load.acknowledges(50).await;
    let Failover { cut_off, killed, story } =
        fail_over(&mut servers, load, &queues[0], until).await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);

    let lost = story.lost(&queues).await;
    let first = lost.iter().filter_map(|post| post.acknowledged).min();
    println!(
        "{} of {} acknowledged posts were lost, the first acknowledged {:?} before the kill; \
         the replicas were cut off {:?} before it; {} calls were refused",
        lost.len(),
        story.acknowledged(),
        first.map(|first| killed - first),
        killed - cut_off,
        story.refused,
    );
    // Asynchronous replication may lose these. The disconnection makes sure that the test finds
    // some.
    assert!(!lost.is_empty());
    for post in lost {
        let acknowledged = post.acknowledged.unwrap();
        assert!((cut_off - LAG..=killed + LAG).contains(&acknowledged), "{} was lost", post.body);
    }
    until_it_works(&queues[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_loses_nothing_that_a_replica_had_to_confirm() {
    let mut servers = Sentinel::start(REPLICAS, &[]);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let queues = [pool.queue().await, pool.queue().await];
    let load = Load::start(&queues, 1);
    // While no replica confirms them, posts fail.
    let until = async |load: &Load| load.refuses(15).await;
    let Failover { cut_off, killed, story } =
        fail_over(&mut servers, load, &queues[0], until).await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    println!(
        "{} posts were acknowledged, {} calls were refused, {:?} without a replica",
        story.acknowledged(),
        story.refused,
        killed - cut_off,
    );
    story.assert_whole(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_enough_replicas_nothing_is_acknowledged() {
    let servers = Sentinel::start(1, &[]);
    // A busy machine is no reason for the calls to fail that must succeed.
    let pool = open(&format!("{}?replicas=1&timeout_ms=20000", servers.uri())).await;
    let queue = pool.queue().await;
    queue.post_n(1).await;
    let one = open(&format!("{}?replicas=1&timeout_ms=500", servers.uri())).await;
    let two = open(&format!("{}?replicas=2&timeout_ms=500", servers.uri())).await;
    assert_eq!(answered(through(&two, &queue).try_post(vec![message("2")]).await), None);
    replicas(&servers).for_each(Redis::pause);
    assert_eq!(answered(through(&one, &queue).try_post(vec![message("3")]).await), None);
    replicas(&servers).for_each(Redis::resume);
    until_it_works(&queue).await;
    // The master has also the posts that failed.
    assert_eq!(everything(&queue).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_that_hangs_is_replaced_and_loses_nothing_when_it_resumes() {
    let servers = Sentinel::start(REPLICAS, &[]);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let queues = [pool.queue().await, pool.queue().await];
    let load = Load::start(&queues, 1);
    load.acknowledges(300).await;
    let old = servers.master();
    servers.server(old).pause();
    servers.wait_for_failover(old);
    load.acknowledges(200).await;
    // The old master acts as one until the sentinels reconfigure it.
    servers.server(old).resume();
    load.acknowledges(200).await;
    servers.wait_until_whole();
    load.acknowledges(200).await;
    let story = load.stop().await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    story.assert_whole(&queues).await;
}
