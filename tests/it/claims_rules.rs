//! Validation of claims and renewals.

use serde_json::{Value, json};
use tests::{Client, Row, TestApp, call, check, delete, get, post};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";
const MISSING: &str = "Not found";

fn claim(body: &Value) -> tests::Call {
    post("/v2/queues/q/claims?limit=1").json(body)
}

async fn with_messages(count: usize) -> Client {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..count).map(|n| json!(n))).await;
    client
}

#[tokio::test]
async fn ttl_and_grace_are_from_60_to_43200_seconds() {
    let client = with_messages(5).await;
    let rows: [Row; 15] = [
        ("least", claim(&json!({"ttl": 60, "grace": 60})), 201, ""),
        ("most", claim(&json!({"ttl": 43_200, "grace": 43_200})), 201, ""),
        ("ttl alone", claim(&json!({"ttl": 60})), 201, ""),
        ("both below", claim(&json!({"ttl": -1, "grace": -1})), 400, BAD_VALUE),
        ("ttl just below", claim(&json!({"ttl": 59, "grace": 60})), 400, BAD_VALUE),
        ("grace just below", claim(&json!({"ttl": 60, "grace": 59})), 400, BAD_VALUE),
        ("grace just above", claim(&json!({"ttl": 60, "grace": 43_201})), 400, BAD_VALUE),
        ("ttl just above", claim(&json!({"ttl": 43_201, "grace": 60})), 400, BAD_VALUE),
        ("ttl 0", claim(&json!({"ttl": 0, "grace": 60})), 400, BAD_VALUE),
        ("grace 0", claim(&json!({"ttl": 60, "grace": 0})), 400, BAD_VALUE),
        ("a huge ttl", claim(&json!({"ttl": i64::MAX, "grace": 60})), 400, BAD_VALUE),
        ("a huge grace", claim(&json!({"ttl": 60, "grace": i64::MAX})), 400, BAD_VALUE),
        ("a ttl that is true", claim(&json!({"ttl": true, "grace": 60})), 400, BAD_VALUE),
        ("a bad ttl, no grace", claim(&json!({"ttl": 59})), 400, BAD_VALUE),
        ("a bad grace, no ttl", claim(&json!({"grace": 59})), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
    assert_eq!(client.counts("q").await, [2, 3, 5], "a refused claim claims nothing");
}

#[tokio::test]
async fn ttl_and_grace_are_integers() {
    let client = with_messages(1).await;
    for value in [json!("60"), json!(""), json!(60.0), json!(60.5), json!([60]), json!({})] {
        for key in ["ttl", "grace"] {
            let refused = client.send(claim(&json!({key: value}))).await;
            refused.expect_error(400, BAD_BODY, &format!("{key} {value}"));
        }
    }
    assert_eq!(client.counts("q").await, [1, 0, 1], "a refused claim claims nothing");
}

#[tokio::test]
async fn the_body_of_a_claim_is_an_object_or_empty() {
    let client = with_messages(4).await;
    let claim = |body: &str| post("/v2/queues/q/claims?limit=1").body(body);
    let rows: [Row; 9] = [
        ("no body", post("/v2/queues/q/claims?limit=1"), 201, ""),
        ("a body of no length", claim(""), 201, ""),
        ("an empty object", claim("{}"), 201, ""),
        ("unknown keys", claim("{\"ttl\": 60, \"limit\": 0}"), 201, ""),
        ("an array", claim("[]"), 400, BAD_BODY),
        ("a scalar", claim("60"), 400, BAD_BODY),
        ("null", claim("null"), 400, BAD_BODY),
        ("no JSON", claim("{ttl: 60}"), 400, BAD_BODY),
        ("blanks", claim("   "), 400, BAD_BODY),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_limit_is_from_1_to_20() {
    let client = with_messages(30).await;
    let limited = |limit: &str| post(format!("/v2/queues/q/claims?limit={limit}"));
    let rows: [Row; 7] = [
        ("least", limited("1"), 201, ""),
        ("most", limited("20"), 201, ""),
        ("0", limited("0"), 400, BAD_VALUE),
        ("-1", limited("-1"), 400, BAD_VALUE),
        ("21", limited("21"), 400, BAD_VALUE),
        ("1000000", limited("1000000"), 400, BAD_VALUE),
        ("a word", limited("all"), 400, "Invalid parameter"),
    ];
    check(&client, rows).await;
    assert_eq!(client.counts("q").await, [9, 21, 30]);
}

#[tokio::test]
async fn a_missing_claim_is_not_found() {
    let client = with_messages(1).await;
    let released = client.claim("q", 1).await.expect("a message is free").id;
    client.release("q", &released).await;
    let zeros = "0".repeat(released.len());
    for (what, id) in [
        ("released", released.as_str()),
        ("unknown", &zeros),
        ("malformed", "nonsense"),
        ("beyond ASCII", "%C3%A9"),
        ("no text", "%FF"),
        ("very long", &"0".repeat(1000)),
    ] {
        let path = format!("/v2/queues/q/claims/{id}");
        let renewal = call("PATCH", &*path).json(&json!({"ttl": 60, "grace": 60}));
        let rows: [Row; 3] = [
            (what, get(&*path), 404, MISSING),
            (what, renewal, 404, MISSING),
            (what, delete(&*path), 204, ""),
        ];
        check(&client, rows).await;
    }
}

#[tokio::test]
async fn a_renewal_is_validated_like_a_claim() {
    let client = with_messages(1).await;
    let id = client.claim("q", 1).await.expect("a message is free").id;
    let path = format!("/v2/queues/q/claims/{id}");
    let renew = |body: Value| call("PATCH", &*path).json(&body);
    let rows: [Row; 17] = [
        ("least", renew(json!({"ttl": 60, "grace": 60})), 204, ""),
        ("most", renew(json!({"ttl": 43_200, "grace": 43_200})), 204, ""),
        ("an empty object", renew(json!({})), 204, ""),
        ("ttl -1", renew(json!({"ttl": -1})), 400, BAD_VALUE),
        ("ttl 59", renew(json!({"ttl": 59, "grace": 60})), 400, BAD_VALUE),
        ("ttl 43201", renew(json!({"ttl": 43_201, "grace": 60})), 400, BAD_VALUE),
        ("a ttl that is true", renew(json!({"ttl": true})), 400, BAD_VALUE),
        ("grace 59", renew(json!({"ttl": 60, "grace": 59})), 400, BAD_VALUE),
        ("grace 43201", renew(json!({"ttl": 60, "grace": 43_201})), 400, BAD_VALUE),
        ("grace -1", renew(json!({"grace": -1})), 400, BAD_VALUE),
        ("ttl as a string", renew(json!({"ttl": "60"})), 400, BAD_BODY),
        ("ttl as a float", renew(json!({"ttl": 60.5})), 400, BAD_BODY),
        ("grace as a string", renew(json!({"grace": "60"})), 400, BAD_BODY),
        ("no body", call("PATCH", &*path), 400, BAD_BODY),
        ("an array", call("PATCH", &*path).body("[]"), 400, BAD_BODY),
        ("a scalar", call("PATCH", &*path).body("60"), 400, BAD_BODY),
        ("no JSON", call("PATCH", &*path).body("{ttl}"), 400, BAD_BODY),
    ];
    check(&client, rows).await;
    let shown = client.get(&path).await.expect(200, "still there").json();
    assert_eq!(shown["ttl"], 300, "the last valid renewal");
}
