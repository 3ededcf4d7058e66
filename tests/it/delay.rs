//! Delayed messages: invisible to readers and consumers until their delay is over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Client, TestApp, eventually};

async fn with_delay(seconds: u32) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": seconds})).await;
    client
}

/// Lists messages until there are some.
async fn wait_until_listed(client: &Client) -> Vec<Value> {
    eventually("a message becomes visible", async || {
        let bodies = client.bodies("q", "echo=true").await;
        (!bodies.is_empty()).then_some(bodies)
    })
    .await
}

#[tokio::test]
async fn a_delayed_message_is_invisible() {
    let client = with_delay(900).await;
    client.post_messages("q", [json!({"body": 1})]).await;
    assert!(client.bodies("q", "echo=true").await.is_empty(), "listed");
    assert!(client.bodies("q", "echo=true&include_delayed=false").await.is_empty(), "listed");
    assert!(client.claim("q", 1).await.is_none(), "claimed");
    assert!(client.pop("q", 1).await.is_empty(), "popped");
    assert_eq!(client.bodies("q", "echo=true&include_delayed=true").await, [1], "asked for");
}

#[tokio::test]
async fn a_delayed_message_can_be_read_and_deleted_by_its_id() {
    let client = with_delay(900).await;
    let ids = client.post_messages("q", [json!({"body": 1}), json!({"body": 2})]).await;
    let one = format!("/v2/queues/q/messages/{}", ids[0]);
    assert_eq!(client.get(&one).await.expect(200, "one").json()["body"], 1);
    let many = format!("/v2/queues/q/messages?ids={}", ids.join(","));
    let found = client.get(many).await.expect(200, "many").json();
    assert_eq!(found["messages"].as_array().unwrap().len(), 2);
    client.delete(&one).await.expect(204, "delete");
    assert_eq!(client.bodies("q", "echo=true&include_delayed=true").await, [2]);
}

#[tokio::test]
async fn a_message_can_have_its_own_delay() {
    let client = with_delay(900).await;
    let messages = [json!({"body": "later"}), json!({"body": "now", "delay": 0})];
    client.post_messages("q", messages).await;
    assert_eq!(client.bodies("q", "echo=true").await, ["now"]);
    let claim = client.claim("q", 5).await.expect("a message is free");
    assert_eq!(claim.messages.len(), 1);
    assert_eq!(claim.messages[0]["body"], "now");
}

#[tokio::test]
async fn a_queue_without_a_delay_ignores_the_delay_of_a_message() {
    let client = TestApp::shared().client();
    client.post_messages("q", [json!({"body": 1, "delay": 900})]).await;
    assert_eq!(client.bodies("q", "echo=true").await, [1]);
    assert_eq!(
        client.bodies("q", "echo=true&include_delayed=false").await,
        [1],
        "include_delayed is ignored"
    );
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_message_becomes_visible_after_its_delay() {
    let client = with_delay(1).await;
    let posted = Instant::now();
    client.post_messages("q", [json!({"body": 1})]).await;
    assert_eq!(wait_until_listed(&client).await, [1]);
    assert!(posted.elapsed() >= Duration::from_millis(900), "it came too early");
    assert!(client.claim("q", 1).await.is_some(), "it can be claimed");
}

#[tokio::test]
async fn a_message_can_have_a_shorter_delay_than_its_queue() {
    let client = with_delay(900).await;
    let messages = [json!({"body": "long"}), json!({"body": "short", "delay": 1})];
    client.post_messages("q", messages).await;
    assert_eq!(wait_until_listed(&client).await, ["short"]);
    assert_eq!(client.pop("q", 20).await.len(), 1);
}
