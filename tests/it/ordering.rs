//! Ordering keys and FIFO queues.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Claim, Client, TestApp};

async fn post(client: &Client, messages: Value) {
    let posted = client.post("/v2/queues/q/messages", &json!({"messages": messages})).await;
    posted.expect(201, "post");
}

fn bodies(claim: Option<&Claim>) -> Vec<Value> {
    let messages = claim.map(|claim| claim.messages.as_slice()).unwrap_or_default();
    messages.iter().map(|message| message["body"].clone()).collect()
}

async fn delete(client: &Client, message: &Value) {
    client.delete(message["href"].as_str().unwrap()).await.expect(204, "delete");
}

#[tokio::test]
async fn messages_of_a_key_are_claimed_one_claim_at_a_time() {
    let client = TestApp::shared().client();
    let keyed = |key: &str, body: i32| json!({"body": body, "ordering_key": key});
    post(&client, json!([keyed("a", 1), keyed("a", 2), keyed("b", 3)])).await;
    let first = client.claim("q", 1).await;
    assert_eq!(bodies(first.as_ref()), [1]);
    assert_eq!(bodies(client.claim("q", 5).await.as_ref()), [3]);
    assert!(client.claim("q", 5).await.is_none(), "the key is blocked");
    delete(&client, &first.unwrap().messages[0]).await;
    assert_eq!(bodies(client.claim("q", 5).await.as_ref()), [2]);
}

#[tokio::test]
async fn a_message_does_not_show_its_ordering_key() {
    let client = TestApp::shared().client();
    post(&client, json!([{"body": 1, "ordering_key": "a"}])).await;
    let claim = client.claim("q", 1).await.unwrap();
    let keys: Vec<_> = claim.messages[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "href", "ttl", "age", "body"]);
}

#[tokio::test]
async fn a_fifo_queue_has_one_claim_at_a_time() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_fifo": true})).await;
    client.post_bodies("q", [json!(1), json!(2), json!(3)]).await;
    let first = client.claim("q", 2).await;
    assert_eq!(bodies(first.as_ref()), [1, 2]);
    assert!(client.claim("q", 5).await.is_none(), "the queue is blocked");
    for message in &first.unwrap().messages {
        delete(&client, message).await;
    }
    assert_eq!(bodies(client.claim("q", 5).await.as_ref()), [3]);
    let keyed = json!({"messages": [{"body": 4, "ordering_key": "a"}]});
    let refused = client.post("/v2/queues/q/messages", &keyed).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn a_claimed_message_blocks_its_key_after_a_crash() {
    let mut app = TestApp::start();
    let client = app.client();
    let keyed = |body: i32| json!({"body": body, "ordering_key": "a"});
    post(&client, json!([keyed(1), keyed(2)])).await;
    let claim = client.claim("q", 1).await.unwrap();
    app.kill();
    app.restart();
    let client = client.reconnected();
    assert!(client.claim("q", 5).await.is_none(), "the key is blocked");
    delete(&client, &claim.messages[0]).await;
    assert_eq!(bodies(client.claim("q", 5).await.as_ref()), [2]);
}

#[tokio::test]
async fn invalid_keys_and_flags_are_refused() {
    let client = TestApp::shared().client();
    for key in [json!(1), json!(null), json!(""), json!("x".repeat(129)), json!("a\u{0}")] {
        let message = json!({"messages": [{"body": 1, "ordering_key": key}]});
        let response = client.post("/v2/queues/q/messages", &message).await;
        assert_eq!(response.status, 400, "{key}");
        assert!(response.text().contains("ordering_key"), "{}", response.text());
    }
    assert_eq!(client.counts("q").await, [0, 0, 0]);
    for flag in [json!(1), json!("true"), json!([])] {
        let response = client.put("/v2/queues/r", &json!({"_fifo": flag})).await;
        assert_eq!(response.status, 400, "{flag}: {}", response.text());
    }
}

#[tokio::test]
async fn a_key_with_many_messages_does_not_delay_other_keys() {
    const MANY: usize = 100_000;
    let app = TestApp::start();
    let client = app.client();
    for _ in 0..MANY / 4_000 {
        post(&client, json!(vec![json!({"body": 0, "ordering_key": "many"}); 4_000])).await;
    }
    let single = |n: usize| json!({"body": n, "ordering_key": format!("single-{n}")});
    post(&client, (1..=100).map(single).collect()).await;
    let mut singles = BTreeSet::new();
    for _ in 0..20 {
        let claim = client.claim("q", 10).await.expect("messages are free");
        let bodies = claim.messages.iter().map(|message| message["body"].as_u64().unwrap());
        singles.extend(bodies.filter(|body| *body > 0));
        let ids = claim.ids().join(",");
        client.delete(format!("/v2/queues/q/messages?ids={ids}")).await.expect(204, "delete");
    }
    assert!(singles.into_iter().eq(1..=100));
}
