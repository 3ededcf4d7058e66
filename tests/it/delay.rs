//! Messages that come later: hidden from readers and consumers until they are due.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Client, DEADLINE, TestApp};
use tokio::time::interval;

async fn with_delay(seconds: u32) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": seconds})).await;
    client
}

/// Asks again and again until a listing with this query shows something.
async fn await_listed(client: &Client, query: &str) -> Vec<Value> {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(50)));
    loop {
        let bodies = client.bodies("q", query).await;
        if !bodies.is_empty() {
            return bodies;
        }
        assert!(start.elapsed() < DEADLINE, "nothing became visible");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn a_delayed_message_is_hidden_until_it_is_due() {
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
async fn a_message_may_have_a_delay_of_its_own() {
    let client = with_delay(900).await;
    let messages = [json!({"body": "later"}), json!({"body": "now", "delay": 0})];
    client.post_messages("q", messages).await;
    assert_eq!(client.bodies("q", "echo=true").await, ["now"]);
    let claim = client.claim("q", 5).await.expect("a message is free");
    assert_eq!(claim.messages.len(), 1);
    assert_eq!(claim.messages[0]["body"], "now");
}

#[tokio::test]
async fn a_queue_without_a_delay_delays_nothing() {
    let client = TestApp::shared().client();
    client.post_messages("q", [json!({"body": 1, "delay": 900})]).await;
    assert_eq!(client.bodies("q", "echo=true").await, [1]);
    assert_eq!(client.bodies("q", "echo=true&include_delayed=false").await, [1], "it is forced on");
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_message_becomes_visible_when_it_is_due() {
    let client = with_delay(1).await;
    let posted = Instant::now();
    client.post_messages("q", [json!({"body": 1})]).await;
    assert_eq!(await_listed(&client, "echo=true").await, [1]);
    assert!(posted.elapsed() >= Duration::from_millis(900), "it came too early");
    assert!(client.claim("q", 1).await.is_some(), "it can be claimed");
}

#[tokio::test]
async fn a_message_may_wait_although_its_queue_does_so_for_longer() {
    let client = with_delay(900).await;
    let messages = [json!({"body": "long"}), json!({"body": "short", "delay": 1})];
    client.post_messages("q", messages).await;
    assert_eq!(await_listed(&client, "echo=true").await, ["short"]);
    assert_eq!(client.pop("q", 20).await.len(), 1);
}
