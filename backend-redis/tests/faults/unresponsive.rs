//! A server that accepts connections, but does not respond.

use std::time::Instant;

use storage_traits::conformance::faults::{
    Load, answered, everything, message, text, until_it_works,
};
use test_servers::redis::Redis;
use tokio::task::JoinSet;

use crate::{
    RECOVERY,
    node::{MAX_CALL_TIME, open},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_to_a_hung_server_fail_in_time_and_succeed_soon_after_it_resumes() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let (queues, probe) = ([pool.queue().await], pool.queue().await);
    let load = Load::start(&queues, 2);
    for _ in 0..2 {
        load.acknowledges(50).await;
        server.pause();
        // Each client has one call in flight: by then, half of them have begun a second one.
        load.refuses(15).await;
        let start = Instant::now();
        assert_eq!(answered(pool.pool.check().await), None);
        assert!(start.elapsed() < MAX_CALL_TIME, "a check took {:?}", start.elapsed());
        server.resume();
        let recovery = until_it_works(&probe).await;
        assert!(recovery < RECOVERY, "it took {recovery:?}");
    }
    load.acknowledges(50).await;
    let story = load.stop().await;
    assert!(story.slowest < MAX_CALL_TIME, "a call took {:?}", story.slowest);
    story.assert_whole(&queues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_timed_out_are_not_sent_later() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queue = pool.queue().await;
    queue.post_n(1).await;
    server.pause();
    // Calls of the first wave may be in the sockets; those of the second must not be sent.
    for wave in 0..2 {
        let mut calls = JoinSet::new();
        for n in 0..200 {
            let queue = queue.clone();
            calls.spawn(async move {
                let start = Instant::now();
                let posted = queue.try_post(vec![message(&format!("\"{wave}-{n}\""))]).await;
                assert_eq!(answered(posted), None);
                start.elapsed()
            });
        }
        let slowest = calls.join_all().await.into_iter().max().unwrap();
        assert!(slowest < MAX_CALL_TIME, "a call took {slowest:?}");
    }
    server.resume();
    until_it_works(&queue).await;
    let mut bodies: Vec<_> = everything(&queue).await.iter().map(text).collect();
    assert!(!bodies.iter().any(|body| body.starts_with("\"1-")), "{bodies:?}");
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), all, "{bodies:?}");
}
