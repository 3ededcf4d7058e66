//! Ways to connect: TLS, sockets, users, passwords, shared servers.

use storage_traits::{
    StoreError,
    conformance::faults::{DEADLINE, exercise, message, through},
};
use test_servers::redis::{Cluster, Redis, Sentinel};

use crate::node::open;

/// Permissions that the pool's user needs, besides the keys and channels with its prefix.
const COMMANDS: &str = "+hello +info +config|get +function|load +fcall +multi +exec \
    +ssubscribe +sunsubscribe +spublish \
    +get +set +setrange +exists +del +unlink \
    +hget +hset +hdel +hmget +hvals +hlen +hexists +hincrby \
    +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore +zrangebylex +zscore +zcard \
    +zremrangebyrank \
    +xadd +xdel +xrange +xrevrange +xlen";

/// Creates a user with these permissions only.
fn make_user(server: &Redis, commands: &str) {
    let keys = "~chapar:* &chapar:*";
    let rules = format!("ACL SETUSER chapar reset on >p@ss:word {keys} -@all {commands}");
    server.command(&rules.split_whitespace().collect::<Vec<_>>());
}

/// Returns the commands that the server has denied to its users.
fn denied(server: &Redis) -> String {
    server.command(&["ACL", "LOG"])
}

fn with_user(uri: &str) -> String {
    uri.replace("://", "://chapar:p%40ss%3Aword@")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_may_be_encrypted() {
    let server = Redis::start_tls();
    let uri = format!("{}?tls_ca={}", server.uri(), server.ca().display());
    exercise(&open(&uri).await).await;
    exercise(&open(&uri.replace("localhost", "127.0.0.1")).await).await;
    // The system does not trust the authority of the certificate.
    let stranger = open(&server.uri()).await;
    let refused = stranger.pool.check().await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let plain = open(&server.uri().replace("rediss", "redis")).await;
    let refused = plain.pool.check().await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_may_be_a_unix_socket() {
    let server = Redis::start(&[]);
    exercise(&open(&format!("unix:{}?database=2", server.socket().display())).await).await;
    assert!(server.command(&["INFO", "keyspace"]).contains("db2:keys="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_needs_few_privileges() {
    let server = Redis::start(&[]);
    make_user(&server, COMMANDS);
    let pool = open(&with_user(&server.uri())).await;
    exercise(&pool).await;
    assert_eq!(denied(&server), "");
    // Each connection selects the database once.
    make_user(&server, &format!("{COMMANDS} +select"));
    exercise(&open(&format!("{}/3", with_user(&server.uri()))).await).await;
    assert_eq!(denied(&server), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_needs_few_privileges_more_on_a_cluster() {
    let servers = Cluster::start(&[]);
    for node in servers.nodes() {
        make_user(node, &format!("{COMMANDS} +cluster|slots +asking +wait"));
    }
    exercise(&open(&format!("{}?replicas=1", with_user(&servers.uri()))).await).await;
    for node in servers.nodes() {
        assert_eq!(denied(node), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_of_the_sentinels_needs_to_ask_for_the_master() {
    let servers = Sentinel::start(1, &[]);
    for server in servers.servers() {
        make_user(server, &format!("{COMMANDS} +wait"));
    }
    let command = "ACL SETUSER chapar on >other -@all +hello +sentinel|get-master-addr-by-name";
    for sentinel in servers.sentinels() {
        sentinel.command(&command.split_whitespace().collect::<Vec<_>>());
    }
    let sentinel = "sentinel_username=chapar&sentinel_password=other";
    let uri = format!("{}?replicas=1&{sentinel}", with_user(&servers.uri()));
    exercise(&open(&uri).await).await;
    assert_eq!(denied(servers.server(servers.master())), "");
    for sentinel in servers.sentinels() {
        assert_eq!(denied(sentinel), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_password_is_a_server_that_cannot_be_reached() {
    let server = Redis::start(&[]);
    server.command(&["CONFIG", "SET", "requirepass", "secret"]);
    for user in ["", ":wrong@", "stranger:secret@"] {
        let pool = open(&server.uri().replace("://", &format!("://{user}"))).await;
        let refused = pool.pool.check().await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{user}: {refused:?}");
        let why = std::error::Error::source(&refused.unwrap_err()).unwrap().to_string();
        assert!(!why.contains("secret"), "{why}");
    }
    let pool = open(&server.uri().replace("://", "://:secret@")).await;
    pool.pool.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pools_with_other_prefixes_or_databases_share_a_server_and_do_not_see_each_other() {
    let server = Redis::start(&[]);
    let uri = server.uri();
    let pools = [
        open(&uri).await,
        open(&format!("{uri}?prefix=other")).await,
        // A prefix that begins with another one.
        open(&format!("{uri}?prefix=chapar.2")).await,
        open(&format!("{uri}/1")).await,
    ];
    let queue = pools[0].queue().await;
    queue.post_n(1).await;
    for (n, pool) in (2..).zip(&pools[1..]) {
        let same = through(pool, &queue);
        let refused = same.try_post(vec![message("1")]).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");
        same.pool.open_queue(&same.queue).await.unwrap();
        same.post_n(n).await;
        assert_eq!(same.counts().await, (n as u64, 0));
    }
    let mut watch = queue.watch(storage_traits::pool::WatchFor::Posts).await;
    for pool in &pools[1..3] {
        through(pool, &queue).post_n(1).await;
        through(pool, &queue).pool.drop_queue(&queue.queue).await.unwrap();
    }
    queue.post_n(1).await;
    assert!(watch.wait(DEADLINE).await);
    assert_eq!(queue.counts().await, (2, 0));
    assert_eq!(through(&pools[3], &queue).counts().await, (4, 0));
}
