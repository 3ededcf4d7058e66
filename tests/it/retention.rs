//! Retention: how long acknowledged messages are kept for groups.

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

const GROUP: &str = "/v2/queues/q/groups/g";

async fn with_retention(retention: Value) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_retention": retention})).await;
    client
}

/// Claims messages for the group, acknowledges them and returns their bodies.
async fn consume(client: &Client) -> Vec<Value> {
    let response = client.send(post(format!("{GROUP}/claims?limit=20"))).await;
    if response.status == 204 {
        return Vec::new();
    }
    let claim = response.expect(201, "claim").json();
    let messages = claim["messages"].as_array().unwrap();
    let ids: Vec<_> = messages.iter().map(|message| message["id"].clone()).collect();
    let done = json!({"claim_id": claim["claim_id"], "acknowledged": ids});
    client.post(format!("{GROUP}/acknowledge"), &done).await.expect(200, "acknowledge");
    messages.iter().map(|message| message["body"].clone()).collect()
}

async fn consume_from_the_start(client: &Client) -> Vec<Value> {
    client.post(format!("{GROUP}/seek"), &json!({"to": "start"})).await.expect(204, "seek");
    consume(client).await
}

#[tokio::test]
async fn acknowledged_messages_can_be_replayed_until_they_expire() {
    let client = with_retention(json!("ttl")).await;
    client.post_bodies("q", [json!(1), json!(2)]).await;
    assert_eq!(client.pop("q", 2).await.len(), 2);
    client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
    assert_eq!(consume(&client).await, [1, 2]);
    assert_eq!(consume(&client).await, Vec::<Value>::new());
    assert_eq!(consume_from_the_start(&client).await, [1, 2]);
    assert_eq!(client.counts("q").await, [0, 0, 0]);
    client.send(post("/v2/queues/q/purge")).await.expect(204, "purge");
    assert_eq!(consume_from_the_start(&client).await, Vec::<Value>::new());
}

#[tokio::test]
async fn without_retention_a_group_gets_only_messages_of_the_queue() {
    for retention in [json!("acknowledged"), Value::Null] {
        let client = with_retention(retention).await;
        client.post_bodies("q", [json!(1), json!(2)]).await;
        client.pop("q", 1).await;
        client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
        assert_eq!(consume(&client).await, [2]);
        client.pop("q", 1).await;
        assert_eq!(consume_from_the_start(&client).await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn a_change_of_retention_applies_to_later_posts() {
    let client = with_retention(json!("acknowledged")).await;
    let set = |verb: &str, value: &str| json!([{"op": verb, "path": "/metadata/_retention", "value": value}]);
    client.post_bodies("q", [json!(1)]).await;
    client.patch_queue("q", &set("replace", "ttl")).await.expect(200, "change");
    client.post_bodies("q", [json!(2)]).await;
    client.patch_queue("q", &set("replace", "acknowledged")).await.expect(200, "change back");
    client.post_bodies("q", [json!(3)]).await;
    client.pop("q", 3).await;
    client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
    assert_eq!(consume(&client).await, [2]);
}

#[tokio::test]
async fn an_invalid_retention_is_refused() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for bad in [json!("forever"), json!(""), json!(true), json!(60), json!(["ttl"]), json!({})] {
        let response = client.put("/v2/queues/r", &json!({"_retention": bad})).await;
        response.expect_error(400, "Invalid API request", &bad.to_string());
        let add = json!([{"op": "add", "path": "/metadata/_retention", "value": bad}]);
        let response = client.patch_queue("q", &add).await;
        response.expect_error(400, "Invalid request body", &bad.to_string());
    }
}

#[tokio::test]
async fn the_limit_of_a_post_counts_retained_messages() {
    let client = with_retention(json!("ttl")).await;
    let messages = |count: usize| json!({"messages": vec![json!({"body": 1}); count]});
    let path = "/v2/queues/q/messages";
    client.post(path, &messages(5_000)).await.expect(201, "the maximum");
    client.post(path, &messages(5_001)).await.expect_error(
        400,
        "Invalid API request",
        "one more than the maximum",
    );
    client.put(GROUP, &json!({})).await.expect(201, "a group counts too");
    client.post(path, &messages(3_333)).await.expect(201, "the maximum");
    client.post(path, &messages(3_334)).await.expect_error(
        400,
        "Invalid API request",
        "one more than the maximum",
    );
}
