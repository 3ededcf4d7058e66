//! A server that is not there yet.

use std::time::{Duration, Instant};

use storage_traits::StoreError;
use test_servers::redis::{Redis, Sentinel};

use crate::{
    RECOVERY,
    builders::{ANSWER, answered, claim_spec, message, open},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_opens_before_its_server_does_and_works_when_it_does() {
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
    // Nobody listens there, which is known at once.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());

    server.restart();
    let start = Instant::now();
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(1).await;
    pool.pool.check().await.unwrap();
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_opens_while_all_sentinels_and_servers_hang_and_works_when_they_go_on() {
    let servers = Sentinel::start(1, &[]);
    let all = || servers.sentinels().iter().chain(servers.servers());
    all().for_each(Redis::pause);
    let start = Instant::now();
    let pool = open(&servers.uri()).await;
    assert!(start.elapsed() < ANSWER, "opening took {:?}", start.elapsed());
    let queue = pool.unopened("project", "orders");
    let start = Instant::now();
    assert_eq!(answered(pool.pool.open_queue(&queue.queue).await), None);
    assert!(start.elapsed() < ANSWER, "a call took {:?}", start.elapsed());

    all().for_each(Redis::resume);
    let start = Instant::now();
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(1).await;
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinels_that_are_not_there_are_answered_for_in_time() {
    let mut server = Redis::start(&[]);
    let port = server.port();
    server.kill();
    let pool = open(&format!("redis+sentinel://127.0.0.1:{port}/main")).await;
    let queue = pool.unopened("project", "orders");
    let start = Instant::now();
    assert_eq!(answered(queue.try_post(vec![message("1")]).await), None);
    assert_eq!(answered(pool.pool.check().await), None);
    assert!(start.elapsed() < 2 * ANSWER, "two calls took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_that_is_not_there_is_answered_for_in_time() {
    let mut server = Redis::start(&[]);
    let port = server.port();
    server.kill();
    let pool = open(&format!("redis+cluster://127.0.0.1:{port}")).await;
    let queue = pool.unopened("project", "orders");
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(answered(queue.try_post(vec![message("1")]).await), None);
        assert!(start.elapsed() < ANSWER, "a post took {:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(answered(pool.pool.check().await), None);
        // It asks for the map, and then for a shard.
        assert!(start.elapsed() < 2 * ANSWER, "a check took {:?}", start.elapsed());
    }
}
