//! A server that is killed and comes back.

use std::time::Instant;

use storage_traits::StoreError;
use test_servers::redis::Redis;

use crate::{
    RECOVERY,
    builders::{ANSWER, answered, message, open, until_it_works},
    load::Load,
};

/// How often the server is killed.
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_on_the_disk_survives_kills_under_load() {
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
    assert!(story.slowest < ANSWER, "a call took {:?}", story.slowest);
    assert!(story.acknowledged() > 500);
    story.assert_whole(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_forgot_everything_is_taught_the_functions_again() {
    let mut server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queue = pool.queue().await;
    queue.post_n(3).await;
    server.restart();
    // The queue is gone with the process, which is what a pool says of a queue that it does not
    // know; and it is known again when it was opened again.
    let start = Instant::now();
    loop {
        match queue.try_post(vec![message("1")]).await {
            Err(StoreError::NotFound { .. }) => break,
            other => assert_eq!(answered(other), None),
        }
        assert!(start.elapsed() < RECOVERY, "it does not know that the queue is gone");
    }
    pool.pool.open_queue(&queue.queue).await.unwrap();
    queue.post_n(3).await;
    assert_eq!(queue.counts().await, (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn functions_that_are_flushed_under_load_are_loaded_again() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
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
