//! Creating, showing and deleting one queue.

use serde_json::{Value, json};
use tests::{Row, TestApp, check, delete, get, put};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";

/// Returns the reserved keys that each queue shows, with their defaults.
pub(crate) fn defaults() -> Value {
    json!({
        "_max_messages_post_size": 262_144,
        "_default_message_ttl": 3600,
        "_default_message_delay": 0,
        "_dead_letter_queue": null,
        "_dead_letter_queue_messages_ttl": null,
        "_max_claim_count": null,
        "_enable_encrypt_messages": false,
    })
}

/// Returns the defaults, overridden by this metadata.
pub(crate) fn with_defaults(metadata: &Value) -> Value {
    let mut shown = defaults();
    shown.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    shown
}

#[tokio::test]
async fn creating_a_queue_is_idempotent() {
    let client = TestApp::shared().client();
    for (what, status) in [("the first time", 201), ("again", 204), ("and again", 204)] {
        let response = client.send(put("/v2/queues/orders")).await.expect(status, what);
        assert_eq!(response.header("location"), Some("/v2/queues/orders"), "{what}");
        assert!(response.body.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn creating_an_existing_queue_does_not_change_it() {
    let client = TestApp::shared().client();
    let metadata = json!({"_default_message_ttl": 300, "team": "blue"});
    client.create_queue("q", &metadata).await;
    let other = json!({"_default_message_ttl": 400, "colour": "red"});
    client.put("/v2/queues/q", &other).await.expect(204, "another body");
    client.send(put("/v2/queues/q")).await.expect(204, "no body");
    assert_eq!(client.get("/v2/queues/q").await.json(), with_defaults(&metadata));
}

#[tokio::test]
async fn the_body_of_a_creation_is_validated() {
    let client = TestApp::shared().client();
    let create = |name: &str, body: &str| put(format!("/v2/queues/{name}")).body(body);
    let rows: [Row; 12] = [
        ("no body", put("/v2/queues/a"), 201, ""),
        ("a body of no length", create("b", ""), 201, ""),
        ("an empty object", create("c", "{}"), 201, ""),
        ("an object among blanks", create("d", " \r\n\t{ \"a\" : 1 } \n"), 201, ""),
        ("an array", create("e", "[]"), 400, BAD_BODY),
        ("a number", create("e", "1"), 400, BAD_BODY),
        ("a string", create("e", "\"metadata\""), 400, BAD_BODY),
        ("null", create("e", "null"), 400, BAD_BODY),
        ("no JSON", create("e", "metadata"), 400, BAD_BODY),
        ("blanks", create("e", " "), 400, BAD_BODY),
        ("a reserved key", create("e", "{\"_default_message_ttl\": 5}"), 400, BAD_VALUE),
        ("no refused body created it", create("e", "{}"), 201, ""),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn metadata_is_limited_to_64_kib() {
    let client = TestApp::shared().client();
    let body = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert_eq!(body(65_536).len(), 65_536);
    let rows: [Row; 4] = [
        ("the maximum", put("/v2/queues/a").body(body(65_536)), 201, ""),
        ("a byte more", put("/v2/queues/b").body(body(65_537)), 400, BAD_VALUE),
        ("too large and no JSON", put("/v2/queues/b").body("x".repeat(65_537)), 400, BAD_VALUE),
        ("blanks are counted", put("/v2/queues/b").body(" ".repeat(65_537) + "{}"), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
    let names = client.get("/v2/queues").await.json();
    assert_eq!(names["queues"].as_array().unwrap().len(), 1, "refused bodies create nothing");
}

#[tokio::test]
async fn metadata_is_stored_unchanged() {
    let client = TestApp::shared().client();
    let metadata = json!({
        "text": "é 漢字 😀", "number": 1.5, "list": [1, "2", null], "nothing": null,
        "nested": {"a": {"b": [{}]}}, "a/b": 1, "~": 2, "": 3, "$where": "1", "a.b": {"c.d": 4},
        "_retry_policy": {"retries_with_no_delay": 1},
    });
    client.create_queue("q", &metadata).await;
    assert_eq!(client.get("/v2/queues/q").await.json(), with_defaults(&metadata));
}

#[tokio::test]
async fn a_missing_queue_shows_the_defaults() {
    let client = TestApp::shared().client();
    let shown = client.get("/v2/queues/missing").await.expect(200, "show");
    assert_eq!(shown.json(), defaults());
    let listed = client.get("/v2/queues").await.json();
    assert_eq!(listed, json!({"queues": [], "links": []}), "showing creates nothing");
}

#[tokio::test]
async fn values_that_mean_unset_show_the_default() {
    let client = TestApp::shared().client();
    let metadata = json!({
        "_default_message_ttl": null, "_max_messages_post_size": null, "_dead_letter_queue": "",
        "_default_message_delay": 0, "_max_claim_count": null, "_enable_encrypt_messages": false,
        "own": 0, "empty": "",
    });
    client.create_queue("q", &metadata).await;
    let expected = with_defaults(&json!({"own": 0, "empty": ""}));
    assert_eq!(client.get("/v2/queues/q").await.json(), expected);
}

#[tokio::test]
async fn deleting_a_queue_deletes_its_contents() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"team": "blue"})).await;
    let before = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    let claim = client.claim("q", 2).await.expect("messages are free");

    client.delete("/v2/queues/q").await.expect(204, "delete");

    let claim = format!("/v2/queues/q/claims/{}", claim.id);
    let message = format!("/v2/queues/q/messages/{}", before[0]);
    let rows: [Row; 3] = [
        ("its claim", get(&claim), 404, "Not found"),
        ("its message", get(&message), 404, "Not found"),
        ("delete again", delete("/v2/queues/q"), 204, ""),
    ];
    check(&client, rows).await;
    assert_eq!(client.get("/v2/queues/q").await.json(), defaults());
    assert_eq!(client.get("/v2/queues").await.json()["queues"], json!([]));
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_recreated_queue_is_independent_of_the_old_one() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let before = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    client.delete("/v2/queues/q").await.expect(204, "delete");
    client.create_queue("q", &json!({})).await;
    assert_eq!(client.list_all("q").await, Vec::<Value>::new());
    let after = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    assert!(before.iter().all(|id| !after.contains(id)), "ids are not reused");
    let path = format!("/v2/queues/q/messages?ids={}", before.join(","));
    client.get(path).await.expect_error(404, "Not found", "messages of the old queue");
    client.delete(format!("/v2/queues/q/messages/{}", before[0])).await.expect(204, "delete");
    assert_eq!(
        client.list_all("q").await.len(),
        5,
        "an id of the old queue deletes no new message"
    );
}

#[tokio::test]
async fn deleting_a_missing_queue_succeeds() {
    let client = TestApp::shared().client();
    client.delete("/v2/queues/never").await.expect(204, "never there");
}
