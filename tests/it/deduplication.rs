//! Deduplication ids: a post that is retried is stored once.

use serde_json::{Value, json};
use tests::{Client, Response, TestApp};

async fn post(client: &Client, messages: Value) -> Response {
    client.post("/v2/queues/q/messages", &json!({"messages": messages})).await
}

async fn resources(client: &Client, messages: Value) -> Vec<Value> {
    let posted = post(client, messages).await.expect(201, "post").json();
    posted["resources"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_retried_post_returns_the_same_message() {
    let client = TestApp::shared().client();
    let first = json!([{"body": 1, "deduplication_id": "order-7"}]);
    let stored = resources(&client, first.clone()).await;
    assert_eq!(resources(&client, first).await, stored);
    let mixed = json!([{"body": 2, "deduplication_id": "order-8"}, {"body": 3},
                       {"body": 4, "deduplication_id": "order-7"}]);
    let again = resources(&client, mixed).await;
    assert_eq!(again[2], stored[0]);
    assert_eq!(client.bodies("q", "echo=true").await, [1, 2, 3]);
    assert_eq!(client.counts("q").await, [3, 0, 3]);
}

#[tokio::test]
async fn a_message_does_not_show_its_deduplication_id() {
    let client = TestApp::shared().client();
    post(&client, json!([{"body": 1, "ttl": 600, "deduplication_id": "x"}]))
        .await
        .expect(201, "post");
    let listed = client.get("/v2/queues/q/messages?echo=true").await.expect(200, "list").json();
    let keys: Vec<_> = listed["messages"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "href", "ttl", "age", "body"]);
}

#[tokio::test]
async fn duplicates_are_recognized_after_a_crash() {
    let mut app = TestApp::start();
    let client = app.client();
    let message = json!([{"body": 1, "deduplication_id": "x"}]);
    let stored = resources(&client, message.clone()).await;
    app.kill();
    app.restart();
    assert_eq!(resources(&client.reconnected(), message).await, stored);
}

#[tokio::test]
async fn an_invalid_id_is_refused() {
    let client = TestApp::shared().client();
    for id in [json!(1), json!(null), json!([]), json!(""), json!("x".repeat(129)), json!("a\n")] {
        let response = post(&client, json!([{"body": 1, "deduplication_id": id}])).await;
        assert_eq!(response.status, 400, "{id}");
        assert!(response.text().contains("deduplication_id"), "{}", response.text());
    }
    assert_eq!(client.bodies("q", "echo=true").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_deduplication_window_is_queue_metadata() {
    let client = TestApp::shared().client();
    let set = |value: Value| {
        let path = "/metadata/_deduplication_window";
        json!([{"op": "add", "path": path, "value": value}])
    };
    client.create_queue("q", &json!({"_deduplication_window": 60})).await;
    client.patch_queue("q", &set(json!(86_400))).await.expect(200, "a day");
    for bad in [json!(0), json!(86_401), json!("60"), json!(1.5)] {
        let response = client.patch_queue("q", &set(bad.clone())).await;
        assert_eq!(response.status, 400, "{bad}: {}", response.text());
        let response = client.put("/v2/queues/r", &json!({"_deduplication_window": bad})).await;
        assert_eq!(response.status, 400, "{bad}: {}", response.text());
    }
}
