//! Moving slots between the masters of a Cluster while they are used.

use storage_traits::{
    conformance::faults::{DEADLINE, Load, ack, answered, claim_spec, message, through},
    domain::{Deduplication, NewMessage, StartPoint},
    pool::WatchFor,
};
use test_servers::redis::Cluster;

use crate::{
    node::{MAX_CALL_TIME, open},
    slot_of,
};

/// Number of times that the slot moves.
const MOVES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moving_a_slot_under_load_loses_and_duplicates_nothing() {
    let servers = Cluster::start(&[]);
    let pool = open(&servers.uri()).await;
    let (queue, other) = (pool.queue().await, pool.queue().await);
    let slot = slot_of(&servers, &queue);
    queue.post_n(2_000).await;
    let queues = [queue, other];
    let load = Load::start(&queues, 2);
    for _ in 0..MOVES {
        load.acknowledges(100).await;
        let owner = servers.owner(slot);
        let next = servers.masters().into_iter().find(|&port| port != owner).unwrap();
        servers.move_slot(slot, next);
    }
    load.acknowledges(100).await;
    let story = load.stop().await;
    println!("{} calls were refused, the slowest took {:?}", story.refused, story.slowest);
    assert_eq!(story.refused, 0);
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    story.assert_whole(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_on_a_queue_whose_slot_moves_is_woken() {
    let servers = Cluster::start(&[]);
    let (pool, elsewhere) = (open(&servers.uri()).await, open(&servers.uri()).await);
    let queue = pool.queue().await;
    let posts = through(&elsewhere, &queue);
    let slot = slot_of(&servers, &queue);
    let mut watch = queue.watch(WatchFor::Posts).await;
    for _ in 0..MOVES {
        let owner = servers.owner(slot);
        let next = servers.masters().into_iter().find(|&port| port != owner).unwrap();
        servers.move_slot(slot, next);
        posts.post_n(1).await;
        assert!(watch.wait(DEADLINE).await, "it is not woken");
        // It may be woken more often until the node is subscribed at the new master.
        while watch.wait(MAX_CALL_TIME).await {}
        posts.post_n(1).await;
        assert!(watch.wait(DEADLINE).await, "it is not woken at the new master");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_half_done_while_a_slot_is_half_moved() {
    let servers = Cluster::start(&[]);
    let pool = open(&servers.uri()).await;
    let hasty = open(&format!("{}?timeout_ms=100", servers.uri())).await;
    let (queue, other) = (pool.queue().await, pool.queue().await);
    let slot = slot_of(&servers, &queue);
    let group = queue.group("g", StartPoint::End).await;
    let keyed = |body: &str| NewMessage {
        ordering_key: Some("k".parse().unwrap()),
        deduplication: Some(Deduplication { id: body.parse().unwrap(), window: DEADLINE }),
        ..message("1")
    };
    queue.post(vec![keyed("a"), keyed("b"), message("2"), message("3")]).await;
    let claim = queue.take(2).await;

    let from = servers.owner(slot);
    let to = servers.masters().into_iter().find(|&port| port != from).unwrap();
    let (source, target) = (servers.node(from), servers.node(to));
    let [source_id, target_id] = [source, target].map(|node| node.command(&["CLUSTER", "MYID"]));
    let slot_text = slot.to_string();
    target.command(&["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &source_id]);
    source.command(&["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &target_id]);
    let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot_text, "100"]);
    // After each key that moves, every call fails without an effect.
    for key in keys.lines() {
        let (queue, group) = (through(&hasty, &queue), through(&hasty, &group));
        let (one, done) = (claim_spec(1), [ack(claim.messages[0].id)]);
        let (posted, claimed, claimed_in_group, acknowledged) = tokio::join!(
            queue.try_post(vec![keyed("c"), message("4")]),
            queue.try_claim(&one),
            group.try_claim(&one),
            queue.pool.acknowledge(&queue.queue, claim.id, &done, queue.now()),
        );
        assert_eq!(answered(posted), None);
        assert_eq!((answered(claimed), answered(claimed_in_group)), (None, None));
        assert_eq!(answered(acknowledged), None);
        source.command(&["MIGRATE", "127.0.0.1", &to.to_string(), key, "0", "10000"]);
    }
    other.post_n(1).await;
    servers.move_slot(slot, to);
    assert_eq!(queue.counts().await, (2, 2));
    assert_eq!(group.counts().await, (4, 0));
    queue.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    queue.post(vec![keyed("c"), message("4")]).await;
    assert_eq!(queue.counts().await, (4, 1));
    assert_eq!(group.pop(10).await.len(), 6);
}
