//! Failover in a Cluster under load.

use std::time::Duration;

use storage_traits::conformance::{TestPool, TestQueue, faults::Load};
use test_servers::redis::{Cluster, Redis};
use tokio::time::Instant;

use crate::{
    OPTIONS,
    node::{MAX_CALL_TIME, open},
    slot_of, wait_for_replicas,
};

/// Creates queues on all masters; returns those of one master, and the others.
async fn queues(servers: &Cluster, pool: &TestPool, master: u16) -> [Vec<TestQueue>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..24 {
        let queue = pool.queue().await;
        let other = servers.owner(slot_of(servers, &queue)) != master;
        found[usize::from(other)].push(queue);
    }
    found
}

/// Returns the replica of a master.
pub(crate) fn replica(servers: &Cluster, master: u16) -> &Redis {
    let line = format!("master_port:{master}");
    let follows = |node: &&Redis| {
        node.command(&["INFO", "replication"]).lines().any(|found| found.trim() == line)
    };
    servers.nodes().iter().find(follows).unwrap()
}

/// Time that a busy machine may take to replicate a post, and until its client records the
/// acknowledgement.
const LAG: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failover_calls_succeed_again_and_the_other_masters_were_not_disturbed() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&servers.uri()).await;
    let old = servers.masters()[0];
    let [hit, others] = queues(&servers, &pool, old).await;
    let slot = slot_of(&servers, &hit[0]);
    let (load, undisturbed) = (Load::start(&hit, 2), Load::start(&others, 2));
    wait_for_replicas(servers.node(old), &hit[0], 1);
    load.acknowledges(300).await;

    let cut_off = Instant::now();
    let replica_port = {
        let replica = replica(&servers, old);
        replica.pause();
        servers.node(old).command(&["CLIENT", "KILL", "TYPE", "replica"]);
        load.acknowledges(50).await;
        replica.port()
    };
    servers.kill(old);
    let killed = Instant::now();
    servers.node(replica_port).resume();
    undisturbed.acknowledges(100).await;
    assert_eq!(servers.wait_for_failover(slot, old), replica_port);
    load.acknowledges(200).await;
    servers.restart(old);
    servers.wait_until_whole();
    load.acknowledges(200).await;

    let undisturbed = undisturbed.stop().await;
    assert_eq!(undisturbed.refused, 0);
    assert!(undisturbed.slowest < MAX_CALL_TIME, "{:?}", undisturbed.slowest);
    undisturbed.assert_whole(&others).await;

    let story = load.stop().await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    let lost = story.lost(&hit).await;
    println!(
        "{} of {} acknowledged posts were lost; the replica was cut off {:?} before the kill; \
         {} calls were refused; the others took {:?} at the most",
        lost.len(),
        story.acknowledged(),
        killed - cut_off,
        story.refused,
        undisturbed.slowest,
    );
    assert!(!lost.is_empty());
    for post in lost {
        let acknowledged = post.acknowledged.unwrap();
        assert!((cut_off - LAG..=killed + LAG).contains(&acknowledged), "{} was lost", post.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_loses_nothing_that_a_replica_had_to_confirm() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let old = servers.masters()[0];
    let [hit, others] = queues(&servers, &pool, old).await;
    let slot = slot_of(&servers, &hit[0]);
    let (load, undisturbed) = (Load::start(&hit, 2), Load::start(&others, 2));
    wait_for_replicas(servers.node(old), &hit[0], 1);
    load.acknowledges(300).await;

    let replica_port = {
        let replica = replica(&servers, old);
        replica.pause();
        servers.node(old).command(&["CLIENT", "KILL", "TYPE", "replica"]);
        // While the replica does not confirm them, posts fail.
        load.refuses(10).await;
        replica.port()
    };
    servers.kill(old);
    servers.node(replica_port).resume();
    servers.wait_for_failover(slot, old);
    // The new master has a replica again when the old one is back.
    servers.restart(old);
    servers.wait_until_whole();
    load.acknowledges(200).await;

    let (story, undisturbed) = (load.stop().await, undisturbed.stop().await);
    assert_eq!(undisturbed.refused, 0);
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    story.assert_whole(&hit).await;
    undisturbed.assert_whole(&others).await;
}
