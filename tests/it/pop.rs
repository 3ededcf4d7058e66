//! Popping messages: reading and deleting them in one request.

use serde_json::{Value, json};
use tests::TestApp;

fn bodies(messages: &[Value]) -> Vec<i64> {
    messages.iter().map(|message| message["body"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn the_oldest_messages_are_popped_and_deleted() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    assert_eq!(bodies(&client.pop("q", 2).await), [0, 1]);
    client.get(format!("/v2/queues/q/messages/{}", ids[0])).await.expect_error(
        404,
        "Not found",
        "0",
    );
    assert_eq!(bodies(&client.pop("q", 20).await), [2, 3, 4]);
    assert!(client.pop("q", 1).await.is_empty());
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_popped_message_shows_exactly_six_keys() {
    let client = TestApp::shared().client();
    let id = client.post_messages("q", [json!({"body": {"a": [1]}, "ttl": 90})]).await.remove(0);
    let popped = client.delete("/v2/queues/q/messages?pop=1").await.expect(200, "pop");
    assert_eq!(popped.header("content-type"), Some("application/json"));
    let popped = popped.json();
    let age = popped["messages"][0]["age"].as_u64().expect("an age in whole seconds");
    let message = json!({
        "id": id, "age": age, "ttl": 90, "body": {"a": [1]}, "claim_id": null, "claim_count": 0,
    });
    assert_eq!(popped, json!({"messages": [message]}));
}

#[tokio::test]
async fn popping_an_empty_queue_returns_no_messages() {
    let client = TestApp::shared().client();
    client.create_queue("empty", &json!({})).await;
    for queue in ["empty", "missing"] {
        let popped = client.delete(format!("/v2/queues/{queue}/messages?pop=5")).await;
        assert_eq!(popped.expect(200, queue).json(), json!({"messages": []}), "{queue}");
    }
    assert_eq!(client.get("/v2/queues").await.json()["queues"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_claimed_message_is_not_popped() {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..4).map(|n| json!(n))).await;
    let claim = client.claim("q", 2).await.expect("messages are free").id;
    assert_eq!(bodies(&client.pop("q", 20).await), [2, 3]);
    client.release("q", &claim).await;
    assert_eq!(bodies(&client.pop("q", 20).await), [0, 1]);
}

#[tokio::test]
async fn messages_of_any_client_are_popped() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(0)]).await;
    client.other_client().post_bodies("q", [json!(1)]).await;
    assert_eq!(bodies(&client.pop("q", 20).await), [0, 1]);
}

#[tokio::test]
async fn a_delayed_message_is_not_popped() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": 900})).await;
    client.post_messages("q", [json!({"body": 0}), json!({"body": 1, "delay": 0})]).await;
    assert_eq!(bodies(&client.pop("q", 20).await), [1]);
}
