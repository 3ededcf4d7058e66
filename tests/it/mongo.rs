//! Catalog and messages on MongoDB: the same API, servers that come and go, and several nodes.

use std::time::{Duration, Instant};

use serde_json::json;
use test_servers::mongo::Mongo;
use tests::{Client, TestApp, post};
use tokio::task::JoinSet;

use crate::outage::{a_queue_lives_and_goes, assert_unavailable, until_it_works};

/// A node that keeps everything in this database.
fn node(uri: &str) -> TestApp {
    TestApp::builder().set("CATALOG__URI", uri).set("POOL__URI", uri).start()
}

/// Another client of the same project.
fn likewise(client: &Client, app: &TestApp) -> Client {
    Client::new(app.address()).id(client.sends("client-id")).project(client.sends("x-project-id"))
}

#[tokio::test]
async fn queues_and_messages_are_kept_in_mongodb() {
    for server in [Mongo::standalone(&[]), Mongo::replica_set(1, &[])] {
        let app = node(&server.uri_of("data"));
        let client = app.client();
        client.create_queue("kept", &json!({"a": {"b.$c": [1, null]}})).await;
        a_queue_lives_and_goes(&client).await;
        let again = node(&server.uri_of("data"));
        let kept = likewise(&client, &again).get("/v2/queues/kept").await;
        assert_eq!(kept.expect(200, "it is there").json()["a"], json!({"b.$c": [1, null]}));
    }
}

#[tokio::test]
async fn a_node_starts_before_its_mongodb_and_works_when_that_is_there() {
    let mut server = Mongo::replica_set(1, &[]);
    server.kill(0);
    let app = node(&format!("{}&timeoutMS=1000", server.uri_of("data")));
    let (client, metrics) = (app.client(), app.metrics());
    metrics.get("/livez").await.expect(200, "it lives");
    assert_eq!(metrics.get("/readyz").await.status, 503);

    server.start(0);
    until_it_works(&client).await;
    metrics.get("/readyz").await.expect(200, "it is ready");
    assert_eq!(client.counts("q").await, [1, 0, 1]);
}

#[tokio::test]
async fn a_mongodb_that_hangs_is_answered_for() {
    let server = Mongo::replica_set(1, &[]);
    let pool = format!("{}&timeoutMS=1000", server.uri_of("data"));
    let app = TestApp::builder().set("POOL__URI", &pool).start();
    let client = app.client();
    client.post_bodies("q", [json!(1)]).await;
    server.pause(0);
    assert_unavailable(&client).await;
    app.metrics().get("/livez").await.expect(200, "it lives");
    assert_eq!(app.metrics().get("/readyz").await.status, 503);
    server.resume(0);
    until_it_works(&client).await;
}

#[tokio::test]
async fn nodes_share_queues_and_wake_each_other() {
    let server = Mongo::replica_set(1, &[]);
    let [here, there] = [(); 2].map(|()| node(&server.uri_of("data")));
    let client = here.client();
    let other = likewise(&client, &there);
    client.create_queue("q", &json!({"_default_message_ttl": 600})).await;
    for n in 0..3 {
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.send(post("/v2/queues/q/claims?limit=1&wait=25")).await }
        });
        other.post_bodies("q", [json!(n)]).await;
        let posted = Instant::now();
        let claimed = waiting.await.unwrap().expect(201, "a message is claimed");
        assert_eq!(claimed.json()["messages"][0]["body"], json!(n));
        assert_eq!(claimed.json()["messages"][0]["ttl"], 600);
        // It is told at once; if it were not, it would look after 25 seconds.
        assert!(posted.elapsed() < Duration::from_secs(10), "it took {:?}", posted.elapsed());
    }
    assert_eq!(other.counts("q").await, [0, 3, 3]);
}

/// Clients see that it takes longer, and no error.
#[tokio::test]
async fn a_primary_that_is_killed_costs_time_and_no_message() {
    let mut server = Mongo::replica_set(3, &[]);
    let app = node(&format!("{}&timeoutMS=30000", server.uri_of("data")));
    let client = app.client();
    client.post_bodies("q", [json!("first")]).await;
    let mut posters = JoinSet::new();
    for poster in 0..8 {
        let client = client.clone();
        posters.spawn(async move {
            for n in 0..40 {
                client.post_bodies("q", [json!([poster, n])]).await;
            }
        });
    }
    server.kill(server.primary());
    posters.join_all().await;
    let stored = client.list_all("q").await;
    assert_eq!(stored.len(), 1 + 8 * 40);
    for poster in 0..8 {
        let own = stored.iter().filter(|message| message["body"][0] == poster);
        let numbers: Vec<_> = own.map(|message| message["body"][1].clone()).collect();
        assert_eq!(numbers, (0..40).map(|n| json!(n)).collect::<Vec<_>>());
    }
    assert_eq!(client.counts("q").await, [321, 0, 321]);
}
