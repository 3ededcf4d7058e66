//! Checksums of bodies, if configured.

use serde_json::{Value, json};
use tests::{Client, TestApp};

/// Returns bodies whose JSON text has only one spelling, and the MD5 of that text.
fn examples() -> [(Value, &'static str); 3] {
    [
        (json!("hello"), "MD5:5deaee1c1332199e5b5bc7c5e4f7f0c2"),
        (json!(42), "MD5:a1d0c6e83f027327d8461063f4ac58a6"),
        (json!(true), "MD5:b326b5062b2f0e69046810717534cb09"),
    ]
}

async fn with_examples(app: &TestApp) -> Client {
    let client = app.client();
    client.post_bodies("q", examples().map(|(body, _)| body)).await;
    client
}

fn assert_checksums(messages: &[Value], what: &str) {
    assert_eq!(messages.len(), 3, "{what}");
    for (message, (body, checksum)) in messages.iter().zip(examples()) {
        assert_eq!(message["body"], body, "{what}");
        assert_eq!(message["checksum"], checksum, "{what}: {body}");
    }
}

#[tokio::test]
async fn a_message_is_always_shown_with_its_checksum() {
    let app = TestApp::builder().set("COMPAT__ENABLE_CHECKSUM", "true").start();
    let client = with_examples(&app).await;
    let listed = client.list_all("q").await;
    assert_checksums(&listed, "listed");
    let ids: Vec<_> = listed.iter().map(|message| message["id"].as_str().unwrap()).collect();
    let many = client.get(format!("/v2/queues/q/messages?ids={}", ids.join(","))).await.json();
    assert_eq!(many["messages"][0]["checksum"].as_str().map(str::len), Some(36), "by ids");
    let one = client.get(format!("/v2/queues/q/messages/{}", ids[0])).await.json();
    assert_eq!(one["checksum"], examples()[0].1, "one");
    let claim = client.claim("q", 3).await.expect("messages are free");
    assert_checksums(&claim.messages, "claimed");
    let shown = client.get(format!("/v2/queues/q/claims/{}", claim.id)).await.json();
    assert_checksums(shown["messages"].as_array().unwrap(), "claim shown");
    client.release("q", &claim.id).await;
    assert_checksums(&client.pop("q", 3).await, "popped");
}

#[tokio::test]
async fn a_null_body_has_no_checksum() {
    let app = TestApp::builder().set("COMPAT__ENABLE_CHECKSUM", "true").start();
    let client = app.client();
    client.post_bodies("q", [json!(null)]).await;
    assert_eq!(client.list_all("q").await[0].get("checksum"), None);
}

#[tokio::test]
async fn checksums_are_off_by_default() {
    let client = with_examples(TestApp::shared()).await;
    for message in client.list_all("q").await {
        assert_eq!(message.get("checksum"), None);
    }
    for message in client.pop("q", 3).await {
        assert_eq!(message.get("checksum"), None);
    }
}
