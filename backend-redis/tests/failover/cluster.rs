//! Cluster: a master dies under load.

use std::time::Duration;

use storage_traits::conformance::{TestPool, TestQueue};
use test_servers::redis::{Cluster, Redis};
use tokio::time::Instant;

use crate::{
    OPTIONS,
    builders::{ANSWER, open},
    follow,
    load::Load,
    slot_of,
};

/// Queues on all masters: those of one of them, and the others.
async fn queues(servers: &Cluster, pool: &TestPool, master: u16) -> [Vec<TestQueue>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..24 {
        let queue = pool.queue().await;
        let other = servers.owner(slot_of(servers, &queue)) != master;
        found[usize::from(other)].push(queue);
    }
    found
}

/// The replica of a master.
pub(crate) fn replica(servers: &Cluster, master: u16) -> &Redis {
    let line = format!("master_port:{master}");
    let follows = |node: &&Redis| {
        node.command(&["INFO", "replication"]).lines().any(|found| found.trim() == line)
    };
    servers.nodes().iter().find(follows).unwrap()
}

/// What a busy machine takes to copy a post, and a client to notice that it was acknowledged.
const LAG: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failover_all_goes_on_and_the_other_masters_were_not_disturbed() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&servers.uri()).await;
    let old = servers.masters()[0];
    let [hit, others] = queues(&servers, &pool, old).await;
    let slot = slot_of(&servers, &hit[0]);
    let (load, undisturbed) = (Load::start(&hit, 2), Load::start(&others, 2));
    follow(servers.node(old), &hit[0], 1);
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
    assert!(undisturbed.slowest < Duration::from_secs(1), "{:?}", undisturbed.slowest);
    undisturbed.assert_whole(&others).await;

    let story = load.stop().await;
    assert!(story.slowest < ANSWER, "a call took {:?}", story.slowest);
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
async fn what_a_replica_has_to_have_is_not_lost_by_a_failover() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let old = servers.masters()[0];
    let [hit, others] = queues(&servers, &pool, old).await;
    let slot = slot_of(&servers, &hit[0]);
    let (load, undisturbed) = (Load::start(&hit, 2), Load::start(&others, 2));
    follow(servers.node(old), &hit[0], 1);
    load.acknowledges(300).await;

    let replica_port = {
        let replica = replica(&servers, old);
        replica.pause();
        servers.node(old).command(&["CLIENT", "KILL", "TYPE", "replica"]);
        // While the replica does not have them, posts are refused.
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
    assert!(story.slowest < ANSWER, "a call took {:?}", story.slowest);
    story.assert_whole(&hit).await;
    undisturbed.assert_whole(&others).await;
}
