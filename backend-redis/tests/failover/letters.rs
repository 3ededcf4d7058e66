//! Dead letters that cannot be moved, because the server that has their grave is gone.

use std::time::Duration;

use storage_traits::{
    conformance::{TestPool, TestQueue},
    domain::{ClaimSpec, DeadLetter},
};
use test_servers::redis::Cluster;

use crate::{
    OPTIONS,
    builders::{ANSWER, answered, claim_spec, everything, message, open, text},
    cluster::replica,
    follow, slot_of,
};

/// How long what is being moved is kept for the mover.
const MOVING: Duration = Duration::from_secs(30);

/// A queue on this master, or on another one.
async fn queue(servers: &Cluster, pool: &TestPool, master: u16, on_it: bool) -> TestQueue {
    loop {
        let queue = pool.queue().await;
        if (servers.owner(slot_of(servers, &queue)) == master) == on_it {
            return queue;
        }
    }
}

fn claim_with_dead_letter(grave: &TestQueue) -> ClaimSpec {
    let queue = grave.queue.clone();
    let rule = DeadLetter { queue, max_claim_count: 1, ttl: None, retained: false };
    ClaimSpec { dead_letter: Some(rule), ..claim_spec(10) }
}

/// All bodies in both queues, in order.
async fn bodies(queues: [&TestQueue; 2]) -> Vec<String> {
    let mut all = Vec::new();
    for queue in queues {
        all.extend(everything(queue).await.iter().map(text));
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn letters_whose_grave_is_gone_are_neither_lost_nor_doubled() {
    let mut servers = Cluster::start(&OPTIONS);
    let pool = open(&servers.uri()).await;
    let old = servers.masters()[0];
    let grave = queue(&servers, &pool, old, true).await;
    let orders = queue(&servers, &pool, old, false).await;
    let slot = slot_of(&servers, &grave);
    let before = orders.post_n(6).await;
    orders.release(orders.take(6).await.id).await;
    let after = orders.post(vec![message("\"new\"")]).await;
    assert_eq!((before.len(), after.len()), (6, 1));
    let all = bodies([&orders, &grave]).await;
    follow(servers.node(old), &grave, 1);

    servers.kill(old);
    let start = std::time::Instant::now();
    let claim = answered(orders.try_claim(&claim_with_dead_letter(&grave)).await).flatten();
    // Until somebody has noticed it is answered without the letters, or not at all.
    assert!(start.elapsed() < 2 * ANSWER, "it took {:?}", start.elapsed());
    let claimed: Vec<_> = claim.iter().flat_map(|claim| &claim.messages).map(text).collect();
    assert!(claimed.iter().all(|body| body == "\"new\""), "{claimed:?}");
    assert_eq!(everything(&orders).await.len(), 7);
    servers.wait_for_failover(slot, old);

    // What was taken for the move is free when nobody can be moving it any more.
    orders.advance(MOVING);
    assert_eq!(bodies([&orders, &grave]).await, all);
    let again = orders.try_claim(&claim_with_dead_letter(&grave)).await.unwrap();
    assert_eq!(again.is_some(), claim.is_none(), "the new message is claimed once");
    assert_eq!(bodies([&orders, &grave]).await, all);
    assert_eq!(everything(&grave).await.len(), 6);
    assert!(everything(&grave).await.iter().all(|letter| letter.origin.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn letters_that_arrived_though_the_mover_cannot_know_arrive_once() {
    let servers = Cluster::start(&OPTIONS);
    let pool = open(&format!("{}?replicas=1", servers.uri())).await;
    let master = servers.masters()[0];
    let grave = queue(&servers, &pool, master, true).await;
    let orders = queue(&servers, &pool, master, false).await;
    orders.post_n(6).await;
    orders.release(orders.take(6).await.id).await;
    let all = bodies([&orders, &grave]).await;

    // The grave stores them, and cannot promise it.
    let replica = replica(&servers, master);
    replica.pause();
    assert_eq!(answered(orders.try_claim(&claim_with_dead_letter(&grave)).await), None);
    assert_eq!(everything(&grave).await.len(), 6);
    assert_eq!(everything(&orders).await.len(), 6);
    replica.resume();

    orders.advance(MOVING);
    let claim = orders.try_claim(&claim_with_dead_letter(&grave)).await.unwrap();
    assert_eq!(claim, None);
    assert_eq!(bodies([&orders, &grave]).await, all);
    assert_eq!(everything(&grave).await.len(), 6);
}
