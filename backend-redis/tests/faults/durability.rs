//! Durability, and the servers that a pool rejects.

use std::time::Instant;

use storage_traits::{
    StoreError,
    conformance::faults::{DEADLINE, ack, answered, claim_spec, everything, message},
    pool::Durability,
};
use test_servers::redis::{Cluster, Redis, Sentinel};

use crate::node::open;

/// Returns why a pool cannot be opened.
async fn refusal(uri: &str) -> String {
    let options = backend_redis::RedisOptions::parse(uri).unwrap();
    match backend_redis::Redis::open(options).await {
        Ok(_) => panic!("{uri} was not refused"),
        Err(error @ StoreError::Unexpected { .. }) => {
            std::error::Error::source(&error).unwrap().to_string()
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_reports_the_durability_of_its_server_and_rejects_less_than_demanded() {
    let (appends, always) = (["--appendonly", "yes"], ["--appendfsync", "always"]);
    for (options, durability, set) in [
        (&[][..], Durability::Memory, Some("appendonly yes")),
        (&["--save", "1 1"], Durability::Memory, Some("appendonly yes")),
        (&always, Durability::Memory, Some("appendonly yes")),
        (&[&appends[..], &["--appendfsync", "no"]].concat(), Durability::OsBuffer, None),
        (&[&appends[..], &["--appendfsync", "everysec"]].concat(), Durability::OsBuffer, None),
        (&[appends, always].concat(), Durability::Fsync, None),
    ] {
        let server = Redis::start(options);
        let pool = open(&server.uri()).await.pool;
        assert_eq!(pool.durability(), durability, "{options:?}");
        for demanded in [Durability::OsBuffer, Durability::Fsync] {
            let uri = format!("{}?durability={}", server.uri(), demanded.as_str());
            if demanded <= durability {
                assert_eq!(open(&uri).await.pool.durability(), durability, "{options:?}");
                continue;
            }
            let refusal = refusal(&uri).await;
            let set = match demanded {
                Durability::Fsync => "appendonly yes and appendfsync always",
                _ => set.unwrap(),
            };
            assert!(refusal.ends_with(&format!("set {set}")), "{refusal}");
            assert!(refusal.contains(durability.as_str()), "{refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_less_durable_after_a_restart_is_not_used() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let pool = open(&format!("{}?durability=fsync", server.uri())).await;
    let queue = pool.queue().await;
    server.restart();
    server.command(&["CONFIG", "SET", "appendfsync", "everysec"]);
    // The first calls may use connections to the process before.
    let start = Instant::now();
    let refused = loop {
        match queue.try_post(vec![message("1")]).await {
            Err(StoreError::Unavailable { .. }) => assert!(start.elapsed() < DEADLINE),
            other => break other,
        }
    };
    assert!(matches!(refused, Err(StoreError::Unexpected { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_evicts_keys_is_rejected() {
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let server = Redis::start(&["--maxmemory-policy", policy]);
        let refusal = refusal(&server.uri()).await;
        assert!(refusal.contains(policy) && refusal.ends_with("noeviction"), "{refusal}");
    }
    let servers = Cluster::start(&[]);
    let port = servers.masters()[1];
    servers.node(port).command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let refusal = refusal(&servers.uri()).await;
    assert!(refusal.contains(&port.to_string()) && refusal.contains("noeviction"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_or_a_node_of_a_cluster_is_rejected_as_a_standalone_server() {
    let servers = Sentinel::start(1, &[]);
    let master = servers.master();
    let replica = servers.servers().iter().find(|server| server.port() != master).unwrap();
    let pool = open(&replica.uri()).await;
    let refused = pool.pool.open_queue(&pool.unopened("p", "q").queue).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.ends_with("is a replica"), "{why}");

    let cluster = Cluster::start(&[]);
    let uri = cluster.node(cluster.masters()[0]).uri();
    // It has one third of the queues.
    let why = refusal(&uri).await;
    assert!(why.contains("redis+cluster://"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_memory_posts_fail_and_consumers_free_memory() {
    let server = Redis::start(&[]);
    let pool = open(&server.uri()).await;
    let queue = pool.queue().await;
    let body = format!("\"{}\"", "x".repeat(10_000));
    let ids = queue.post((0..400).map(|_| message(&body)).collect()).await;
    let claim = queue.take(100).await;
    let limit = |bytes: u64| {
        server.command(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]);
    };
    let info = server.command(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    limit(used.trim().parse::<u64>().unwrap() - 500_000);

    for _ in 0..3 {
        let refused = queue.try_post(vec![message("1")]).await;
        assert!(matches!(refused, Err(StoreError::Overloaded { .. })), "{refused:?}");
        let refused = pool.pool.open_queue(&pool.unopened("p", "q").queue).await;
        assert!(matches!(refused, Err(StoreError::Overloaded { .. })), "{refused:?}");
        // A claim is stored, too.
        let refused = queue.try_claim(&claim_spec(1)).await;
        assert!(matches!(refused, Err(StoreError::Overloaded { .. })), "{refused:?}");
    }
    // Reads succeed.
    assert_eq!(queue.counts().await, (300, 100));
    assert_eq!(queue.get(&ids[..1]).await.len(), 1);
    assert_eq!(everything(&queue).await.len(), 400);

    let all: Vec<_> = claim.messages.iter().map(|message| ack(message.id)).collect();
    queue.acknowledge(claim.id, &all[..50]).await;
    queue.release(claim.id).await;
    queue.delete_many(&ids[200..230], &[]).await;
    assert_eq!(queue.pop(30).await.len(), 30);
    assert_eq!(queue.counts().await, (290, 0));
    assert!(answered(queue.try_post(vec![message("1")]).await).is_some());
    assert!(queue.claim(&claim_spec(1)).await.is_some());
}
