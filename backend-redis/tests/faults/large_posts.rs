//! Large posts do not delay small ones.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use storage_traits::conformance::faults::message;
use test_servers::redis::Redis;
use tokio::sync::oneshot;

use crate::node::open;

/// Number of small posts.
const COUNT: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_posts_do_not_wait_behind_large_ones() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let (small, large) = (pool.queue().await, pool.queue().await);
    let body = format!("\"{}\"", "x".repeat(20_000));
    let (stop, mut stopped) = oneshot::channel::<()>();
    let batches = Arc::new(AtomicUsize::new(0));
    let posts = tokio::spawn({
        let batches = Arc::clone(&batches);
        async move {
            while stopped.try_recv().is_err() {
                large.post((0..10).map(|_| message(&body)).collect()).await;
                if (batches.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(50) {
                    large.purge().await;
                }
            }
        }
    });
    let mut batches_meanwhile = Vec::new();
    while batches_meanwhile.len() < COUNT {
        let before = batches.load(Ordering::SeqCst);
        small.post_n(1).await;
        batches_meanwhile.push(batches.load(Ordering::SeqCst) - before);
    }
    stop.send(()).unwrap();
    posts.await.unwrap();
    batches_meanwhile.sort_unstable();
    let (median, batches) = (batches_meanwhile[COUNT / 2], batches.load(Ordering::SeqCst));
    println!("of {batches} batches of 200 KB, {median} were stored while a small post waited");
    assert!(batches > 10, "only {batches} batches were posted");
    // A small post may come just after a batch, and another batch may come before its reply.
    // Counting batches instead of time does not depend on the machine.
    assert!(median <= 2, "{median} batches were stored while a small post waited");
}
