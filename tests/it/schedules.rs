//! Messages that are posted now and delivered at a moment of their own.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

async fn post_at(client: &Client, moment: &Value) -> tests::Answer {
    let message = json!({"body": 1, "ttl": 600, "deliver_at": moment});
    client.post("/v2/queues/q/messages", &json!({"messages": [message]})).await
}

/// A moment this many seconds from now.
#[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
fn ahead(seconds: u64) -> Value {
    let moment = jiff::Timestamp::now() + Duration::from_secs(seconds);
    json!(moment.to_string())
}

#[tokio::test]
async fn a_scheduled_message_comes_at_its_time() {
    let client = TestApp::shared().client();
    post_at(&client, &ahead(2)).await.expect(201, "post");
    assert!(client.claim("q", 1).await.is_none(), "before its time");
    assert!(client.pop("q", 1).await.is_empty(), "before its time");
    let claim = client.send(post("/v2/queues/q/claims?wait=30")).await;
    let claimed = claim.expect(201, "at its time").json();
    assert_eq!(claimed["messages"][0]["ttl"], 600);
}

#[tokio::test]
async fn a_moment_that_has_passed_means_now() {
    let client = TestApp::shared().client();
    post_at(&client, &json!("2001-02-03T04:05:06+02:00")).await.expect(201, "post");
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_scheduled_message_is_listed_and_can_be_cancelled() {
    let client = TestApp::shared().client();
    let posted = post_at(&client, &ahead(3_000)).await.expect(201, "post").json();
    // A queue without a delay shows all that is in it.
    assert_eq!(client.bodies("q", "echo=true").await, [1]);
    client.delete(posted["resources"][0].as_str().unwrap()).await.expect(204, "cancel");
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_queue_with_a_delay_hides_what_is_scheduled() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": 1})).await;
    post_at(&client, &ahead(3_000)).await.expect(201, "post");
    assert_eq!(client.bodies("q", "echo=true").await, Vec::<Value>::new());
    assert_eq!(client.bodies("q", "echo=true&include_delayed=true").await, [1]);
    let both = json!({"body": 1, "deliver_at": ahead(60), "delay": 5});
    let refused = client.post("/v2/queues/q/messages", &json!({"messages": [both]})).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn a_bad_moment_is_refused() {
    let client = TestApp::shared().client();
    let bad = [
        json!(1_900_000_000),
        json!(null),
        json!(""),
        json!("tomorrow"),
        json!("2030-01-01"),
        json!("2030-01-01T00:00:00"),
        json!("2030-02-30T00:00:00Z"),
        json!("9999-01-01T00:00:00Z"),
        ahead(1_209_700),
    ];
    for moment in bad {
        let answer = post_at(&client, &moment).await;
        assert_eq!(answer.status, 400, "{moment}: {}", answer.text());
        assert!(answer.text().contains("deliver_at"), "{}", answer.text());
    }
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}
