//! Catalog and messages on MongoDB: the same API, servers that fail and recover, and several nodes.

use std::time::{Duration, Instant};

use serde_json::json;
use test_servers::mongo::Mongo;
use tests::{Client, TestApp, eventually, post};
use tokio::task::JoinSet;

use crate::crash::Acknowledgements;
use crate::outage::{Outages, Promise, recovery, slowest_refusal, use_and_delete_a_queue};

/// Refusals come after the `timeoutMS` of the test. The recovery of the driver is not promised.
const PROMISE: Promise = Promise { refusal: Duration::from_secs(3), recovery: Duration::MAX };

/// The longest wait of a claim, in seconds.
const MAX_WAIT: u64 = 30;

/// Starts a node that keeps queues and messages in this database.
fn node(uri: &str) -> TestApp {
    TestApp::builder().set("CATALOG__URI", uri).set("POOL__URI", uri).start()
}

/// Returns a client of another node with the same identity.
fn client_of(app: &TestApp, client: &Client) -> Client {
    Client::new(app.address()).id(client.sends("client-id")).project(client.sends("x-project-id"))
}

#[tokio::test]
async fn queues_and_messages_are_kept_in_mongodb() {
    for server in [Mongo::standalone(&[]), Mongo::replica_set(1, &[])] {
        let app = node(&server.uri_of("data"));
        let client = app.client();
        client.create_queue("kept", &json!({"a": {"b.$c": [1, null]}})).await;
        use_and_delete_a_queue(&client).await;
        let second = node(&server.uri_of("data"));
        let kept = client_of(&second, &client).get("/v2/queues/kept").await;
        assert_eq!(kept.expect(200, "the queue exists").json()["a"], json!({"b.$c": [1, null]}));
    }
}

#[tokio::test]
async fn a_node_that_starts_before_its_mongodb_works_once_mongodb_is_up() {
    let mut server = Mongo::replica_set(1, &[]);
    server.kill(0);
    let app = node(&format!("{}&timeoutMS=1000", server.uri_of("data")));
    let (client, metrics) = (app.client(), app.metrics());
    metrics.get("/livez").await.expect(200, "the node is alive");
    assert_eq!(metrics.get("/readyz").await.status, 503);

    server.start(0);
    recovery(&client).await;
    metrics.get("/readyz").await.expect(200, "the node is ready");
    assert_eq!(client.counts("q").await, [1, 0, 1]);
}

#[tokio::test]
async fn requests_are_refused_while_mongodb_hangs() {
    let server = Mongo::replica_set(1, &[]);
    let pool = format!("{}&timeoutMS=1000", server.uri_of("data"));
    let app = TestApp::builder().set("POOL__URI", &pool).start();
    let client = app.client();
    client.post_bodies("q", [json!(1)]).await;
    let mut times = Outages::default();
    loop {
        server.pause(0);
        let refusal = slowest_refusal(&client).await;
        app.metrics().get("/livez").await.expect(200, "the node is alive");
        assert_eq!(app.metrics().get("/readyz").await.status, 503);
        server.resume(0);
        if times.record(refusal, recovery(&client).await, &PROMISE) {
            return;
        }
    }
}

#[tokio::test]
async fn nodes_share_queues_and_wake_each_others_claims() {
    let server = Mongo::replica_set(1, &[]);
    let [here, there] = [(); 2].map(|()| node(&server.uri_of("data")));
    let client = here.client();
    let other = client_of(&there, &client);
    client.create_queue("q", &json!({"_default_message_ttl": 600})).await;
    for n in 0..3 {
        let start = Instant::now();
        let waiting = tokio::spawn({
            let client = client.clone();
            let path = format!("/v2/queues/q/claims?limit=1&wait={MAX_WAIT}");
            async move { client.send(post(path)).await }
        });
        eventually("the claim waits", async || {
            let metrics = here.metrics().get("/metrics").await;
            metrics.text().contains("requests_in_flight 1\n").then_some(())
        })
        .await;
        other.post_bodies("q", [json!(n)]).await;
        let claimed = waiting.await.unwrap().expect(201, "a message is claimed");
        assert_eq!(claimed.json()["messages"][0]["body"], json!(n));
        assert_eq!(claimed.json()["messages"][0]["ttl"], 600);
        // A claim that is not woken returns only after its whole wait.
        assert!(start.elapsed() < Duration::from_secs(MAX_WAIT), "the claim was not woken");
    }
    assert_eq!(other.counts("q").await, [0, 3, 3]);
}

/// Requests during a failover take longer, but none fails.
#[tokio::test]
async fn a_killed_primary_costs_time_but_no_message() {
    let mut server = Mongo::replica_set(3, &[]);
    let app = node(&format!("{}&timeoutMS=90000", server.uri_of("data")));
    let client = app.client();
    client.post_bodies("q", [json!("first")]).await;
    let acknowledged = Acknowledgements::new();
    let mut posters = JoinSet::new();
    for poster in 0..8 {
        let (client, acknowledged) = (client.clone(), acknowledged.clone());
        posters.spawn(async move {
            for n in 0..40 {
                client.post_bodies("q", [json!([poster, n])]).await;
                acknowledged.count_one();
            }
        });
    }
    // The next line blocks the only thread of the runtime: no poster continues before the kill.
    acknowledged.wait_for(40).await;
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
