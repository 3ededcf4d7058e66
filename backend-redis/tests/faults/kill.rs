//! A server that is killed and restarted.

use std::time::Instant;

use storage_traits::{
    StoreError,
    conformance::faults::{Load, answered, message, until_it_works},
};
use test_servers::redis::Redis;

use crate::{
    RECOVERY,
    node::{MAX_CALL_TIME, open},
};

/// Number of times that the server is killed.
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_with_fsync_survives_kills_under_load() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let pool = open(&format!("{}?durability=fsync", server.uri())).await;
    let queues = [pool.queue().await, pool.queue().await];
    let probe = pool.queue().await;
    let load = Load::start(&queues, 2);
    for round in 0..KILLS {
        load.acknowledges(100 + 30 * round).await;
        server.kill();
        load.refuses(8).await;
        server.restart();
        let recovery = until_it_works(&probe).await;
        assert!(recovery < RECOVERY, "it took {recovery:?}");
    }
    load.acknowledges(100).await;
    let story = load.stop().await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    assert!(story.acknowledged() > 500);
    story.assert_whole(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_lost_its_data_gets_the_functions_again() {
    let mut server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queue = pool.queue().await;
    queue.post_n(3).await;
    server.restart();
    // The server has lost the queue, so the pool reports that it does not exist, until it is opened
    // again.
    let start = Instant::now();
    loop {
        match queue.try_post(vec![message("1")]).await {
            Err(StoreError::NotFound { .. }) => break,
            other => assert_eq!(answered(other), None),
        }
        assert!(start.elapsed() < RECOVERY, "the pool does not notice that the queue is lost");
    }
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(3).await;
    assert_eq!(queue.counts().await, (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn functions_that_are_flushed_under_load_are_loaded_again() {
    let server = Redis::start(&[]);
    // A busy machine is no reason for a call to fail.
    let pool = open(&format!("{}?timeout_ms=20000", server.uri())).await;
    let queues = [pool.queue().await];
    let load = Load::start(&queues, 2);
    for _ in 0..20 {
        load.acknowledges(20).await;
        server.command(&["FUNCTION", "FLUSH"]);
        server.command(&["SCRIPT", "FLUSH"]);
    }
    load.acknowledges(20).await;
    let story = load.stop().await;
    assert_eq!(story.refused, 0);
    story.assert_whole(&queues).await;
}
