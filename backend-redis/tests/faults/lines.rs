//! Large calls do not keep small ones waiting.

use std::time::{Duration, Instant};

use test_servers::redis::Redis;
use tokio::sync::oneshot;

use crate::builders::{message, open};

/// How many small posts are timed.
const COUNT: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_posts_do_not_wait_behind_large_ones() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let (small, large) = (pool.queue().await, pool.queue().await);
    let body = format!("\"{}\"", "x".repeat(20_000));
    let (stop, mut stopped) = oneshot::channel::<()>();
    let posts = tokio::spawn(async move {
        let mut count = 0;
        while stopped.try_recv().is_err() {
            large.post((0..10).map(|_| message(&body)).collect()).await;
            count += 1;
            if count % 50 == 0 {
                large.purge().await;
            }
        }
        count
    });
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < COUNT {
        let start = Instant::now();
        small.post_n(1).await;
        times.push(start.elapsed());
    }
    stop.send(()).unwrap();
    let batches = posts.await.unwrap();
    times.sort();
    let median = times[COUNT / 2];
    println!("beside {batches} batches of 200 KB a small post took {median:?}");
    assert!(batches > 10, "only {batches} batches were posted");
    // A batch takes the server some milliseconds, and may come just before a small post; a busy
    // machine takes its time. A line of batches would take far longer.
    assert!(median < Duration::from_millis(50), "a small post took {median:?}");
}
