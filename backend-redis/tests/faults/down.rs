//! A server that is down when the pool opens.

use std::time::Instant;

use storage_traits::{
    StoreError,
    conformance::faults::{answered, claim_spec, message},
};
use test_servers::redis::{Redis, Sentinel};

use crate::{
    RECOVERY,
    node::{MAX_CALL_TIME, MAX_TWO_CALLS_TIME, open},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_opens_before_its_server_and_works_when_the_server_is_up() {
    let mut server = Redis::start(&[]);
    server.kill();
    let pool = open(&server.uri()).await;
    let queue = pool.unopened("project", "orders");

    let start = Instant::now();
    let opened = pool.pool.open_queue(&queue.queue).await;
    assert!(matches!(opened, Err(StoreError::Unavailable { .. })), "{opened:?}");
    assert_eq!(answered(queue.try_post(vec![message("1")]).await), None);
    assert_eq!(answered(queue.try_claim(&claim_spec(1)).await), None);
    assert_eq!(answered(pool.pool.sweep(pool.now()).await), None);
    assert_eq!(answered(pool.pool.check().await), None);
    // The system refuses each connection at once, so all calls together take less than one timeout.
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());

    server.restart();
    let start = Instant::now();
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(1).await;
    pool.pool.check().await.unwrap();
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_opens_while_all_sentinels_and_servers_hang_and_works_when_they_resume() {
    let servers = Sentinel::start(1, &[]);
    let all = || servers.sentinels().iter().chain(servers.servers());
    all().for_each(Redis::pause);
    let start = Instant::now();
    let pool = open(&servers.uri()).await;
    assert!(start.elapsed() < MAX_CALL_TIME, "opening took {:?}", start.elapsed());
    let queue = pool.unopened("project", "orders");
    let start = Instant::now();
    assert_eq!(answered(pool.pool.open_queue(&queue.queue).await), None);
    assert!(start.elapsed() < MAX_CALL_TIME, "a call took {:?}", start.elapsed());

    all().for_each(Redis::resume);
    let start = Instant::now();
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(1).await;
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_fail_in_time_when_all_sentinels_are_down() {
    let mut server = Redis::start(&[]);
    let port = server.port();
    server.kill();
    let pool = open(&format!("redis+sentinel://127.0.0.1:{port}/main")).await;
    let queue = pool.unopened("project", "orders");
    let start = Instant::now();
    assert_eq!(answered(queue.try_post(vec![message("1")]).await), None);
    assert_eq!(answered(pool.pool.check().await), None);
    assert!(start.elapsed() < MAX_TWO_CALLS_TIME, "two calls took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_fail_in_time_when_all_nodes_of_a_cluster_are_down() {
    let mut server = Redis::start(&[]);
    let port = server.port();
    server.kill();
    let pool = open(&format!("redis+cluster://127.0.0.1:{port}")).await;
    let queue = pool.unopened("project", "orders");
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(answered(queue.try_post(vec![message("1")]).await), None);
        assert!(start.elapsed() < MAX_CALL_TIME, "a post took {:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(answered(pool.pool.check().await), None);
        // It reads the slot map, and then asks for a shard.
        assert!(start.elapsed() < MAX_TWO_CALLS_TIME, "a check took {:?}", start.elapsed());
    }
}
