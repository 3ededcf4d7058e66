//! Messages on Redis: the same API, a server that fails and recovers, and several nodes.

use std::time::{Duration, Instant};

use serde_json::json;
use test_servers::redis::Redis;
use tests::{Client, TestApp, eventually, post};

use crate::outage::{Outages, Promise, recovery, slowest_refusal, use_and_delete_a_queue};

/// The documented times are two seconds for a refusal and one for the recovery. The rest is for
/// the request itself.
const PROMISE: Promise =
    Promise { refusal: Duration::from_secs(3), recovery: Duration::from_secs(2) };

/// The longest wait of a claim, in seconds.
const MAX_WAIT: u64 = 30;

/// Starts a node that keeps messages on this server.
fn node(server: &Redis) -> TestApp {
    TestApp::builder().set("POOL__URI", &server.uri()).start()
}

#[tokio::test]
async fn messages_are_posted_claimed_and_deleted_on_redis() {
    let server = Redis::start(&[]);
    let app = node(&server);
    use_and_delete_a_queue(&app.client()).await;
}

#[tokio::test]
async fn a_node_that_starts_before_its_redis_works_once_redis_is_up() {
    let mut server = Redis::start(&[]);
    server.kill();
    let app = node(&server);
    let (client, metrics) = (app.client(), app.metrics());
    let mut times = Outages::default();
    for outage in 1.. {
        metrics.get("/livez").await.expect(200, "the node is alive");
        assert_eq!(metrics.get("/readyz").await.status, 503);
        client.put("/v2/queues/q", &json!({})).await;
        let refusal = slowest_refusal(&client).await;

        server.restart();
        let recovery = recovery(&client).await;
        metrics.get("/readyz").await.expect(200, "the node is ready");
        assert_eq!(client.counts("q").await, [1, 0, 1]);
        // The second outage begins while the node is connected.
        if times.record(refusal, recovery, &PROMISE) && outage >= 2 {
            return;
        }
        // Without persistence, Redis loses the queues. The node creates them again when used.
        server.kill();
    }
}

#[tokio::test]
async fn requests_are_refused_while_redis_hangs() {
    let server = Redis::start(&[]);
    let app = node(&server);
    let client = app.client();
    client.post_bodies("q", [json!(1)]).await;
    let mut times = Outages::default();
    loop {
        server.pause();
        let refusal = slowest_refusal(&client).await;
        app.metrics().get("/livez").await.expect(200, "the node is alive");
        assert_eq!(app.metrics().get("/readyz").await.status, 503);
        server.resume();
        if times.record(refusal, recovery(&client).await, &PROMISE) {
            return;
        }
    }
}

#[tokio::test]
async fn a_post_to_one_node_wakes_a_claim_that_waits_on_another() {
    let server = Redis::start(&[]);
    let here = node(&server);
    let catalog = format!("sqlite:{}", here.database().display());
    let there =
        TestApp::builder().set("CATALOG__URI", &catalog).set("POOL__URI", &server.uri()).start();
    let client = here.client();
    let other = Client::new(there.address())
        .id(client.sends("client-id"))
        .project(client.sends("x-project-id"));
    client.create_queue("q", &json!({})).await;

    for n in 0..3 {
        let start = Instant::now();
        let waiting = tokio::spawn({
            let client = client.clone();
            let path = format!("/v2/queues/q/claims?limit=1&wait={MAX_WAIT}");
            async move { client.send(post(path)).await }
        });
        eventually("the claim waits", async || {
            let channels = server.command(&["PUBSUB", "SHARDCHANNELS"]);
            channels.contains(":w").then_some(())
        })
        .await;
        other.post_bodies("q", [json!(n)]).await;
        let claimed = waiting.await.unwrap().expect(201, "a message is claimed");
        assert_eq!(claimed.json()["messages"][0]["body"], json!(n));
        // A claim that is not woken returns only after its whole wait.
        assert!(start.elapsed() < Duration::from_secs(MAX_WAIT), "the claim was not woken");
    }
    assert_eq!(other.counts("q").await, [0, 3, 3]);
}
