//! Messages on Redis: the same API, a server that comes and goes, and several nodes.

use std::time::{Duration, Instant};

use serde_json::json;
use test_servers::redis::Redis;
use tests::{Client, DEADLINE, TestApp, post};
use tokio::time::interval;

use crate::outage::{a_queue_lives_and_goes, assert_unavailable, until_it_works};

/// A node whose messages are on this server.
fn node(server: &Redis) -> TestApp {
    TestApp::builder().set("POOL__URI", &server.uri()).start()
}

#[tokio::test]
async fn messages_are_posted_claimed_and_deleted_on_redis() {
    let server = Redis::start(&[]);
    let app = node(&server);
    let client = app.client();
    a_queue_lives_and_goes(&client).await;
}

#[tokio::test]
async fn a_node_starts_before_its_redis_and_works_when_that_is_there() {
    let mut server = Redis::start(&[]);
    server.kill();
    let app = node(&server);
    let (client, metrics) = (app.client(), app.metrics());
    for _ in 0..2 {
        metrics.get("/livez").await.expect(200, "it lives");
        assert_eq!(metrics.get("/readyz").await.status, 503);
        client.put("/v2/queues/q", &json!({})).await;
        assert_unavailable(&client).await;

        server.restart();
        let recovery = until_it_works(&client).await;
        // The promise is one second; the machine has other things to do.
        assert!(recovery < Duration::from_secs(2), "it took {recovery:?}");
        metrics.get("/readyz").await.expect(200, "it is ready");
        assert_eq!(client.counts("q").await, [1, 0, 1]);
        // Its queues go with it, as it keeps nothing, and are made again when they are used.
        server.kill();
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_answered_for() {
    let server = Redis::start(&[]);
    let app = node(&server);
    let client = app.client();
    client.post_bodies("q", [json!(1)]).await;
    server.pause();
    assert_unavailable(&client).await;
    app.metrics().get("/livez").await.expect(200, "it lives");
    assert_eq!(app.metrics().get("/readyz").await.status, 503);
    server.resume();
    let recovery = until_it_works(&client).await;
    assert!(recovery < Duration::from_secs(2), "it took {recovery:?}");
}

#[tokio::test]
async fn a_claim_that_waits_on_one_node_is_woken_by_a_post_to_another() {
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
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.send(post("/v2/queues/q/claims?limit=1&wait=25")).await }
        });
        let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(5)));
        let waits = |channels: String| channels.contains(":w");
        while !waits(server.command(&["PUBSUB", "SHARDCHANNELS"])) {
            assert!(start.elapsed() < DEADLINE, "it does not wait");
            ticks.tick().await;
        }
        other.post_bodies("q", [json!(n)]).await;
        let posted = Instant::now();
        let claimed = waiting.await.unwrap().expect(201, "a message is claimed");
        assert_eq!(claimed.json()["messages"][0]["body"], json!(n));
        // It is told at once; if it were not, it would look after 25 seconds.
        assert!(posted.elapsed() < Duration::from_secs(10), "it took {:?}", posted.elapsed());
    }
    assert_eq!(other.counts("q").await, [0, 3, 3]);
}
