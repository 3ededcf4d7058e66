//! Validation of JSON bodies in all calls that take one.

use serde_json::{Value, json};
use tests::{Call, Client, Row, TestApp, call, check, patch, post, put};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";

/// Returns all calls that take a body. Their queue and claim exist.
async fn calls_with_a_body(client: &Client) -> [(&'static str, Call); 6] {
    client.create_queue("q", &json!({})).await;
    client.post_bodies("q", [json!(1)]).await;
    let claim = client.claim("q", 1).await.expect("a message is free").id;
    [
        ("create a queue", put("/v2/queues/another")),
        ("patch a queue", patch("/v2/queues/q")),
        ("purge", post("/v2/queues/q/purge")),
        ("post messages", post("/v2/queues/q/messages")),
        ("claim", post("/v2/queues/q/claims")),
        ("renew a claim", call("PATCH", format!("/v2/queues/q/claims/{claim}"))),
    ]
}

#[tokio::test]
async fn invalid_json_is_refused_by_every_call() {
    let client = TestApp::shared().client();
    let documents: [(&str, &[u8]); 22] = [
        ("half an object", b"{"),
        ("half an array", b"[1"),
        ("half a word", b"nul"),
        ("more than one document", b"{\"a\":1}}"),
        ("two documents", b"{} {}"),
        ("single quotes", b"{'a':1}"),
        ("a leading zero", b"{\"a\":01}"),
        ("a trailing comma", b"{\"a\":1,}"),
        ("a bare number", b"123"),
        ("a bare string", b"\"x\""),
        ("a bare boolean", b"true"),
        ("a bare null", b"null"),
        ("blanks", b"  "),
        ("no text", b"\xff\xfe\x00"),
        ("no UTF-8 within a string", b"{\"a\":\"\xff\"}"),
        ("an integer too large", b"{\"a\":9223372036854775808}"),
        ("a nested integer too large", b"{\"a\":[{\"b\":9223372036854775808}]}"),
        ("an integer too small", b"[{\"a\":-9223372036854775809}]"),
        ("an integer far too large", b"{\"a\":123456789012345678901234567890}"),
        ("not a number", b"{\"a\":NaN}"),
        ("infinity", b"{\"a\":Infinity}"),
        ("negative infinity", b"[{\"a\":-Infinity}]"),
    ];
    for (name, call) in calls_with_a_body(&client).await {
        for (what, document) in documents {
            let response = client.send(call.clone().body(document)).await;
            response.expect_error(400, BAD_BODY, &format!("{name}: {what}"));
        }
    }
}

#[tokio::test]
async fn nesting_is_limited() {
    let client = TestApp::shared().client();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (name, call) in calls_with_a_body(&client).await {
        for depth in [129, 5_000, 30_000] {
            let body = format!("{{\"a\":{}}}", nested(depth));
            let response = client.send(call.clone().body(body)).await;
            response.expect_error(400, BAD_BODY, &format!("{name}: {depth} levels"));
        }
    }
    let body = format!("{{\"messages\":[{{\"body\":{}}}]}}", nested(110));
    client.send(post("/v2/queues/deep/messages").body(body)).await.expect(201, "within the limit");
    assert_eq!(client.list_all("deep").await[0]["body"].to_string(), nested(110));
}

#[tokio::test]
async fn a_missing_required_body_is_refused() {
    let client = TestApp::shared().client();
    let optional = ["create a queue", "purge", "claim"];
    for (name, call) in calls_with_a_body(&client).await {
        for (what, call) in [("none", call.clone()), ("an empty one", call.body(""))] {
            let response = client.send(call).await;
            if optional.contains(&name) {
                assert!(
                    matches!(response.status, 201 | 204),
                    "{name}: {what}: {}",
                    response.status
                );
            } else {
                response.expect_error(400, BAD_BODY, &format!("{name}: {what}"));
            }
        }
    }
}

#[tokio::test]
async fn an_array_is_not_an_object() {
    let client = TestApp::shared().client();
    for (name, call) in calls_with_a_body(&client).await {
        let title = match name {
            "patch a queue" => continue,
            // These two calls check for a missing key first.
            "post messages" => BAD_VALUE,
            "purge" => {
                let response = client.send(call.body("[]")).await;
                assert_eq!(response.status, 400, "{name}: {}", response.text());
                continue;
            }
            _ => BAD_BODY,
        };
        client.send(call.clone().body("[]")).await.expect_error(400, title, name);
        for body in ["[{\"ttl\": 60}]", "[60, 60]", "[null]", "[[{\"body\": 1}]]"] {
            let response = client.send(call.clone().body(body)).await;
            response.expect_error(400, title, &format!("{name}: {body}"));
        }
    }
}

#[tokio::test]
async fn an_object_is_not_an_array() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let object = json!({"op": "add", "path": "/metadata/a", "value": 1});
    client.patch_queue("q", &object).await.expect_error(400, BAD_BODY, "an operation alone");
    client.patch_queue("q", &json!({})).await.expect_error(400, BAD_BODY, "an empty object");
    let in_order = json!([["add", "/metadata/a", 1]]);
    client.patch_queue("q", &in_order).await.expect_error(
        400,
        BAD_BODY,
        "an operation as an array",
    );
}

#[tokio::test]
async fn a_boolean_is_an_integer_out_of_range() {
    let client = TestApp::shared().client();
    let ttl = |ttl: bool| json!({"messages": [{"body": 1, "ttl": ttl}]});
    let rows: [Row; 5] = [
        ("ttl true", post("/v2/queues/q/messages").json(&ttl(true)), 400, BAD_VALUE),
        ("ttl false", post("/v2/queues/q/messages").json(&ttl(false)), 400, BAD_VALUE),
        ("claim ttl", post("/v2/queues/q/claims").json(&json!({"ttl": true})), 400, BAD_VALUE),
        ("claim grace", post("/v2/queues/q/claims").json(&json!({"grace": false})), 400, BAD_VALUE),
        (
            "metadata",
            put("/v2/queues/q2").json(&json!({"_default_message_ttl": true})),
            400,
            BAD_VALUE,
        ),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_largest_integers_are_accepted() {
    let client = TestApp::shared().client();
    let bodies = [i64::MAX, i64::MIN].map(|n| json!({"n": [n]}));
    client.post_bodies("q", bodies.clone()).await;
    assert_eq!(client.bodies("q", "echo=true").await, bodies);
    let metadata = json!({"least": i64::MIN, "most": i64::MAX});
    client.create_queue("metadata", &metadata).await;
    let shown = client.get("/v2/queues/metadata").await.json();
    assert_eq!(shown["least"], metadata["least"]);
    assert_eq!(shown["most"], metadata["most"]);
}

#[tokio::test]
async fn a_body_is_returned_unchanged() {
    let client = TestApp::shared().client();
    let bodies: [Value; 14] = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(1e100),
        json!(""),
        json!("text"),
        json!("line\nfeed \u{0} \u{7f} \u{2028} \"quotes\" \\ / é 漢字 😀"),
        json!([]),
        json!({}),
        json!([1, [2, [3, {}]], null]),
        json!({"": {"messages": [{"body": 1, "ttl": 60}]}}),
        json!({"key": {"key": {"key": "value"}}, "other": [true, false]}),
        json!("x".repeat(10_000)),
    ];
    client.post_bodies("q", bodies.clone()).await;
    assert_eq!(client.bodies("q", "echo=true&limit=20").await, bodies, "listed");
    let claim = client.claim("q", 20).await.expect("all are free");
    let claimed: Vec<_> = claim.messages.iter().map(|message| message["body"].clone()).collect();
    assert_eq!(claimed, bodies, "claimed");
    client.release("q", &claim.id).await;
    let popped = client.pop("q", 20).await;
    let popped: Vec<_> = popped.iter().map(|message| message["body"].clone()).collect();
    assert_eq!(popped, bodies, "popped");
}
