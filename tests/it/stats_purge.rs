//! Statistics of a queue, and purging it.

use std::time::Instant;

use serde_json::{Value, json};
use tests::{Row, TestApp, check, post};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";

#[tokio::test]
async fn a_missing_queue_has_no_messages() {
    let client = TestApp::shared().client();
    let zeros = json!({"messages": {"claimed": 0, "free": 0, "total": 0}});
    let missing = client.get("/v2/queues/missing/stats").await.expect(200, "missing");
    assert_eq!(missing.json(), zeros);
    client.create_queue("empty", &json!({})).await;
    let empty = client.get("/v2/queues/empty/stats").await.expect(200, "empty");
    assert_eq!(empty.json(), zeros);
    assert_eq!(client.get("/v2/queues").await.json()["queues"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn counts_are_exact_after_each_change() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..15).map(|n| json!(n))).await;
    assert_eq!(client.counts("q").await, [15, 0, 15], "posted");
    let claim = client.claim("q", 10).await.expect("messages are free");
    assert_eq!(client.counts("q").await, [5, 10, 15], "claimed");
    let path = format!("/v2/queues/q/messages/{}?claim_id={}", ids[0], claim.id);
    client.delete(path).await.expect(204, "delete a claimed message");
    assert_eq!(client.counts("q").await, [5, 9, 14], "one deleted by its claim");
    let path = format!("/v2/queues/q/messages?ids={},{}", ids[1], ids[2]);
    client.delete(path).await.expect(204, "delete claimed messages in bulk");
    assert_eq!(client.counts("q").await, [5, 7, 12], "two deleted in bulk");
    assert_eq!(client.pop("q", 2).await.len(), 2);
    assert_eq!(client.counts("q").await, [3, 7, 10], "popped");
    client.release("q", &claim.id).await;
    assert_eq!(client.counts("q").await, [10, 0, 10], "released");
}

#[tokio::test]
async fn the_oldest_and_the_newest_message_are_shown() {
    let client = TestApp::shared().client();
    let start = Instant::now();
    let ids = client.post_bodies("q", (0..4).map(|n| json!({"n": n}))).await;
    client.claim("q", 1).await.expect("a message is free");
    let stats = client.get("/v2/queues/q/stats").await.expect(200, "stats");
    assert_eq!(stats.header("content-type"), Some("application/json"));
    let stats = stats.json();
    assert_eq!(stats["messages"].as_object().unwrap().len(), 5, "{stats}");
    for (which, id) in [("oldest", &ids[0]), ("newest", &ids[3])] {
        let shown = &stats["messages"][which];
        let keys: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 3, "{which}: {keys:?}");
        let href = shown["href"].as_str().unwrap();
        assert_eq!(
            href.split('?').next().unwrap(),
            format!("/v2/queues/q/messages/{id}"),
            "{which}"
        );
        let age = shown["age"].as_u64().unwrap();
        assert!(age <= start.elapsed().as_secs() + 1, "{which}: {shown}");
        assert!(is_utc_seconds(shown["created"].as_str().unwrap()), "{which}: {shown}");
    }
    let oldest = stats["messages"]["oldest"]["created"].as_str().unwrap();
    assert!(oldest <= stats["messages"]["newest"]["created"].as_str().unwrap());
}

/// Returns whether a text has the form of `2026-01-31T10:00:00Z`.
fn is_utc_seconds(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(c, p): (char, char)| if p == 'd' { c.is_ascii_digit() } else { c == p };
    text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(fits)
}

#[tokio::test]
async fn a_purge_deletes_the_messages_and_keeps_the_queue() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"team": "blue"})).await;
    for body in [None, Some(json!({"resource_types": ["messages"]}))] {
        client.post_bodies("q", (0..350).map(|n| json!(n))).await;
        let purge = post("/v2/queues/q/purge");
        let purge = if let Some(body) = &body { purge.json(body) } else { purge };
        let response = client.send(purge).await.expect(204, "purge");
        assert!(response.body.is_empty());
        assert_eq!(client.counts("q").await, [0, 0, 0], "{body:?}");
        assert_eq!(client.get("/v2/queues/q").await.json()["team"], "blue", "{body:?}");
    }
}

#[tokio::test]
async fn a_purge_keeps_claimed_messages() {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..130).map(|n| json!(n))).await;
    let claim = client.claim("q", 20).await.expect("messages are free");
    client.send(post("/v2/queues/q/purge")).await.expect(204, "purge");
    assert_eq!(client.counts("q").await, [0, 20, 20]);
    let path = format!("/v2/queues/q/claims/{}", claim.id);
    let kept = client.get(path).await.expect(200, "the claim").json();
    assert_eq!(kept["messages"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_purge_of_other_resources_keeps_the_messages() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(1)]).await;
    for types in [json!([]), json!(["subscriptions"])] {
        let body = json!({"resource_types": types});
        client.post("/v2/queues/q/purge", &body).await.expect(204, &types.to_string());
        assert_eq!(client.counts("q").await, [1, 0, 1], "{types}");
    }
    let both = json!({"resource_types": ["messages", "subscriptions"]});
    client.post("/v2/queues/q/purge", &both).await.expect(204, "both");
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn the_body_of_a_purge_is_validated() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(1)]).await;
    let purge = |body: Value| post("/v2/queues/q/purge").json(&body);
    let rows: [Row; 6] = [
        ("no key", purge(json!({})), 400, BAD_VALUE),
        ("another key", purge(json!({"types": ["messages"]})), 400, BAD_VALUE),
        ("another type", purge(json!({"resource_types": ["claims"]})), 400, BAD_VALUE),
        ("one of two", purge(json!({"resource_types": ["messages", "x"]})), 400, BAD_VALUE),
        ("no JSON", post("/v2/queues/q/purge").body("{resource_types"), 400, BAD_BODY),
        ("a scalar", post("/v2/queues/q/purge").body("\"messages\""), 400, BAD_BODY),
    ];
    check(&client, rows).await;
    for types in
        [json!(1), json!("messages"), json!(null), json!({}), json!([1]), json!([["messages"]])]
    {
        let refused = client.post("/v2/queues/q/purge", &json!({"resource_types": types})).await;
        assert_eq!(refused.status, 400, "{types}: {}", refused.text());
    }
    assert_eq!(client.counts("q").await, [1, 0, 1], "a refused purge deletes nothing");
}

#[tokio::test]
async fn purging_a_missing_queue_succeeds() {
    let client = TestApp::shared().client();
    client.send(post("/v2/queues/missing/purge")).await.expect(204, "no body");
    let body = json!({"resource_types": ["messages"]});
    client.post("/v2/queues/missing/purge", &body).await.expect(204, "a body");
    assert_eq!(client.get("/v2/queues").await.json()["queues"], json!([]));
}
