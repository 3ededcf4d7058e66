//! Moves to a dead-letter queue whose server is down.

use std::time::Duration;

use storage_traits::conformance::{
    TestPool, TestQueue,
    faults::{answered, claim_with_dead_letter, everything, message, text},
};
use test_servers::redis::Cluster;

use crate::{
    OPTIONS,
    cluster::replica,
    node::{MAX_TWO_CALLS_TIME, open},
    slot_of, wait_for_replicas,
};

/// How long a message stays reserved for a transfer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// Creates a queue on a master, or on another one.
async fn queue(servers: &Cluster, pool: &TestPool, master: u16, on_it: bool) -> TestQueue {
    loop {
        let queue = pool.queue().await;
        if (servers.owner(slot_of(servers, &queue)) == master) == on_it {
            return queue;
        }
    }
}

/// Returns the bodies in both queues, sorted.
async fn bodies(queues: [&TestQueue; 2]) -> Vec<String> {
    let mut all = Vec::new();
    for queue in queues {
        all.extend(everything(queue).await.iter().map(text));
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letters_whose_queue_is_down_are_neither_lost_nor_duplicated() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&servers.uri()).await;
    let old = servers.masters()[0];
    let dlq = queue(&servers, &pool, old, true).await;
    let orders = queue(&servers, &pool, old, false).await;
    let slot = slot_of(&servers, &dlq);
    let before = orders.post_n(6).await;
    orders.release(orders.take(6).await.id).await;
    let after = orders.post(vec![message("\"new\"")]).await;
    assert_eq!((before.len(), after.len()), (6, 1));
    let all = bodies([&orders, &dlq]).await;
    wait_for_replicas(servers.node(old), &dlq, 1);

    servers.kill(old);
    let start = std::time::Instant::now();
    let claim = answered(orders.try_claim(&claim_with_dead_letter(10, 1, &dlq)).await).flatten();
    // Before the failover, the claim returns without the dead letters, or fails.
    assert!(start.elapsed() < MAX_TWO_CALLS_TIME, "it took {:?}", start.elapsed());
    let claimed: Vec<_> = claim.iter().flat_map(|claim| &claim.messages).map(text).collect();
    assert!(claimed.iter().all(|body| body == "\"new\""), "{claimed:?}");
    assert_eq!(everything(&orders).await.len(), 7);
    servers.wait_for_failover(slot, old);

    // The reservation of the messages expires.
    orders.advance(TRANSFER_TIMEOUT);
    assert_eq!(bodies([&orders, &dlq]).await, all);
    let again = orders.try_claim(&claim_with_dead_letter(10, 1, &dlq)).await.unwrap();
    assert_eq!(again.is_some(), claim.is_none(), "the new message is claimed once");
    assert_eq!(bodies([&orders, &dlq]).await, all);
    assert_eq!(everything(&dlq).await.len(), 6);
    assert!(everything(&dlq).await.iter().all(|message| message.origin.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letters_whose_transfer_was_not_confirmed_are_stored_once() {
    let servers = Cluster::start(&OPTIONS);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let master = servers.masters()[0];
    let dlq = queue(&servers, &pool, master, true).await;
    let orders = queue(&servers, &pool, master, false).await;
    orders.post_n(6).await;
    orders.release(orders.take(6).await.id).await;
    let all = bodies([&orders, &dlq]).await;

    // The dead-letter queue stores the messages, but cannot confirm it without its replica.
    let replica = replica(&servers, master);
    replica.pause();
    assert_eq!(answered(orders.try_claim(&claim_with_dead_letter(10, 1, &dlq)).await), None);
    assert_eq!(everything(&dlq).await.len(), 6);
    assert_eq!(everything(&orders).await.len(), 6);
    replica.resume();

    orders.advance(TRANSFER_TIMEOUT);
    let claim = orders.try_claim(&claim_with_dead_letter(10, 1, &dlq)).await.unwrap();
    assert_eq!(claim, None);
    assert_eq!(bodies([&orders, &dlq]).await, all);
    assert_eq!(everything(&dlq).await.len(), 6);
}
