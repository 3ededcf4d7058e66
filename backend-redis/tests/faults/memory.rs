//! Memory: what a message takes, and what is left when queues are empty or dropped.

use std::{collections::BTreeSet, time::Duration};

use storage_traits::conformance::faults::{exercise, message};
use test_servers::redis::Redis;

use crate::node::open;

/// Maximum bytes that a ready message of a kibibyte takes besides its body.
const OVERHEAD: u64 = 250;

/// Returns the kinds of keys in a server, without what differs between queues: `QUEUE` is the state
/// of a queue or group, `SHARD` a key of a shard.
fn kinds(server: &Redis) -> BTreeSet<String> {
    let kind = |key: &str| {
        let (_, rest) = key.split_once("}:").unwrap();
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if digits.len() == rest.len() { format!("SHARD:{rest}") } else { format!("QUEUE{digits}") }
    };
    server.command(&["KEYS", "chapar:*"]).lines().map(kind).collect()
}

fn set<const N: usize>(kinds: [&str; N]) -> BTreeSet<String> {
    kinds.map(ToOwned::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn expired_data_leaves_no_keys() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queues = exercise(&pool).await;
    // Deduplication windows, ttls and transfer ids end within two days.
    for _ in 0..3 {
        pool.advance(Duration::from_hours(20));
        pool.sweep_all().await;
    }
    assert_eq!(pool.sweep_all().await, 0);
    for queue in &queues {
        assert_eq!(queue.counts().await, (0, 0));
    }
    // One queue still has a group, and two have a retention log.
    let left = [
        "QUEUE",
        "QUEUE:dropped",
        "QUEUE:group_names",
        "QUEUE:groups",
        "QUEUE:retention_log",
        "SHARD:check",
    ];
    assert_eq!(kinds(&server), set(left));

    for queue in &queues {
        queue.pool.drop_queue(&queue.queue).await.unwrap();
    }
    pool.sweep_all().await;
    assert_eq!(kinds(&server), set(["QUEUE:dropped", "SHARD:check"]));
    for key in server.command(&["KEYS", "chapar:*"]).lines() {
        let left: i64 = server.command(&["TTL", key]).parse().unwrap();
        assert!((1..=600).contains(&left), "{key} stays for {left} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_queues_leave_no_keys() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    for queue in exercise(&pool).await {
        queue.pool.drop_queue(&queue.queue).await.unwrap();
    }
    pool.sweep_all().await;
    assert_eq!(kinds(&server), set(["QUEUE:dropped", "SHARD:check"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ready_message_takes_little_besides_its_body() {
    const COUNT: u64 = 20_000;
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queue = pool.queue().await;
    let used = || -> u64 {
        let info = server.command(&["INFO", "memory"]);
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        used.trim().parse().unwrap()
    };
    let body = format!("\"{}\"", "x".repeat(1_022));
    let before = used();
    for _ in 0..COUNT / 100 {
        queue.post((0..100).map(|_| message(&body)).collect()).await;
    }
    let each = (used() - before) / COUNT;
    println!("a message of 1024 bytes takes {each} bytes");
    assert!(each < 1_024 + OVERHEAD, "{each} bytes");
    queue.purge().await;
    pool.advance(Duration::from_hours(1));
    pool.sweep_all().await;
    assert_eq!(kinds(&server), set(["QUEUE"]));
}
