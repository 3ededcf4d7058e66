//! Configured limits and defaults.

use serde_json::json;
use tests::{Row, TestApp, check, delete, get, patch, post, put};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";

#[tokio::test]
async fn the_size_of_metadata_can_be_configured() {
    let app = TestApp::builder().set("LIMITS__MAX_QUEUE_METADATA", "64").start();
    let client = app.client();
    let object = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    let operations = |size: usize| format!("[]{}", " ".repeat(size - 2));
    let rows: [Row; 4] = [
        ("64 bytes", put("/v2/queues/q").body(object(64)), 201, ""),
        ("65 bytes", put("/v2/queues/other").body(object(65)), 400, BAD_VALUE),
        ("a patch of 64 bytes", patch("/v2/queues/q").body(operations(64)), 200, ""),
        ("a patch of 65 bytes", patch("/v2/queues/q").body(operations(65)), 400, BAD_BODY),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_size_of_a_post_can_be_configured() {
    let app = TestApp::builder().set("LIMITS__MAX_MESSAGES_POST_SIZE", "256").start();
    let client = app.client();
    let body = |size: usize| {
        let frame = "{\"messages\":[{\"body\":\"\"}]}".len();
        format!("{{\"messages\":[{{\"body\":\"{}\"}}]}}", "x".repeat(size - frame))
    };
    let size = |size: u32| json!({"_max_messages_post_size": size});
    let rows: [Row; 4] = [
        ("256 bytes", post("/v2/queues/q/messages").body(body(256)), 201, ""),
        ("257 bytes", post("/v2/queues/q/messages").body(body(257)), 400, BAD_VALUE),
        ("a queue with the same limit", put("/v2/queues/a").json(&size(256)), 201, ""),
        ("a queue with a larger limit", put("/v2/queues/b").json(&size(257)), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
    let shown = client.get("/v2/queues/q").await.json();
    assert_eq!(shown["_max_messages_post_size"], 256);
}

#[tokio::test]
async fn defaults_can_be_configured() {
    let app = TestApp::builder()
        .set("LIMITS__DEFAULT_MESSAGE_TTL", "1234")
        .set("LIMITS__DEFAULT_MESSAGE_DELAY", "7")
        .set("LIMITS__DEFAULT_CLAIM_TTL", "123")
        .set("LIMITS__DEFAULT_CLAIM_GRACE", "99")
        .start();
    let client = app.client();
    let shown = client.get("/v2/queues/q").await.json();
    assert_eq!(shown["_default_message_ttl"], 1234);
    assert_eq!(shown["_default_message_delay"], 7);
    client.post_messages("q", [json!({"body": 1}), json!({"body": 2, "ttl": 60})]).await;
    assert_eq!(client.list_all("q").await[0]["ttl"], 1234, "posted without a ttl");
    let claim = client.claim("q", 2).await.expect("the default delay is only shown");
    let path = format!("/v2/queues/q/claims/{}", claim.id);
    assert_eq!(client.get(&path).await.json()["ttl"], 123, "claimed without a ttl");
    let (ttl, age) = (&claim.messages[1]["ttl"], claim.messages[1]["age"].as_u64().unwrap());
    // The ttl and grace of the claim, counted from the claim instead of the post.
    assert!((222..=222 + age + 1).contains(&ttl.as_u64().unwrap()), "{ttl} at age {age}");
    client.patch_claim("q", &claim.id, &json!({"ttl": 500})).await.expect(204, "renew");
    client.patch_claim("q", &claim.id, &json!({})).await.expect(204, "renew");
    assert_eq!(client.get(&path).await.json()["ttl"], 123, "renewed without a ttl");
}

#[tokio::test]
async fn maxima_can_be_configured() {
    let app = TestApp::builder()
        .set("LIMITS__DEFAULT_MESSAGE_TTL", "100")
        .set("LIMITS__DEFAULT_CLAIM_TTL", "100")
        .set("LIMITS__MAX_MESSAGE_TTL", "200")
        .set("LIMITS__MAX_MESSAGE_DELAY", "50")
        .set("LIMITS__MAX_CLAIM_TTL", "300")
        .set("LIMITS__MAX_CLAIM_GRACE", "400")
        .start();
    let client = app.client();
    let message = |ttl: u32| {
        post("/v2/queues/q/messages").json(&json!({"messages": [{"body": 1, "ttl": ttl}]}))
    };
    let queue =
        |key: &str, value: u32| put(format!("/v2/queues/{key}-{value}")).json(&json!({key: value}));
    let claim = |key: &str, value: u32| post("/v2/queues/none/claims").json(&json!({key: value}));
    let rows: [Row; 10] = [
        ("message ttl 200", message(200), 201, ""),
        ("message ttl 201", message(201), 400, BAD_VALUE),
        ("queue ttl 200", queue("_default_message_ttl", 200), 201, ""),
        ("queue ttl 201", queue("_default_message_ttl", 201), 400, BAD_VALUE),
        ("queue delay 50", queue("_default_message_delay", 50), 201, ""),
        ("queue delay 51", queue("_default_message_delay", 51), 400, BAD_VALUE),
        ("claim ttl 300", claim("ttl", 300), 204, ""),
        ("claim ttl 301", claim("ttl", 301), 400, BAD_VALUE),
        ("claim grace 400", claim("grace", 400), 204, ""),
        ("claim grace 401", claim("grace", 401), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn page_sizes_can_be_configured() {
    let app = TestApp::builder()
        .set("LIMITS__MAX_QUEUES_PER_PAGE", "12")
        .set("LIMITS__MAX_MESSAGES_PER_PAGE", "13")
        .set("LIMITS__MAX_MESSAGES_PER_CLAIM_OR_POP", "14")
        .start();
    let client = app.client();
    let ids = |count: usize| vec!["x"; count].join(",");
    let rows: [Row; 12] = [
        ("12 queues", get("/v2/queues?limit=12"), 200, ""),
        ("13 queues", get("/v2/queues?limit=13"), 400, BAD_VALUE),
        ("13 messages", get("/v2/queues/q/messages?limit=13"), 200, ""),
        ("14 messages", get("/v2/queues/q/messages?limit=14"), 400, BAD_VALUE),
        ("get 13 ids", get(format!("/v2/queues/q/messages?ids={}", ids(13))), 404, "Not found"),
        ("get 14 ids", get(format!("/v2/queues/q/messages?ids={}", ids(14))), 400, BAD_VALUE),
        ("delete 13 ids", delete(format!("/v2/queues/q/messages?ids={}", ids(13))), 204, ""),
        ("delete 14 ids", delete(format!("/v2/queues/q/messages?ids={}", ids(14))), 400, BAD_VALUE),
        ("claim 14", post("/v2/queues/q/claims?limit=14"), 204, ""),
        ("claim 15", post("/v2/queues/q/claims?limit=15"), 400, BAD_VALUE),
        ("pop 14", delete("/v2/queues/q/messages?pop=14"), 200, ""),
        ("pop 15", delete("/v2/queues/q/messages?pop=15"), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
}
