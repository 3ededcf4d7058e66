//! Validation of the reserved keys of queue metadata.

use serde_json::{Value, json};
use tests::{TestApp, put};

use crate::queues::with_defaults;

/// A key, its valid values and its invalid values.
type Rule = (&'static str, Vec<Value>, Vec<Value>);

fn rules() -> [Rule; 6] {
    let ttls = [json!(60), json!(61), json!(1_209_600), json!(null)];
    let no_ttls = [
        json!(59),
        json!(0),
        json!(-1),
        json!(1_209_601),
        json!("60"),
        json!(""),
        json!("sixty"),
        json!(60.5),
        json!(60.0),
        json!([60]),
        json!({}),
        json!(true),
        json!(false),
    ];
    [
        (
            "_max_messages_post_size",
            vec![json!(1), json!(262_144), json!(null), json!(true)],
            vec![
                json!(0),
                json!(-1),
                json!(262_145),
                json!("1"),
                json!(""),
                json!(1.5),
                json!([1]),
                json!({}),
                json!(false),
            ],
        ),
        ("_default_message_ttl", ttls.to_vec(), no_ttls.to_vec()),
        (
            "_default_message_delay",
            vec![json!(0), json!(1), json!(900), json!(null), json!(true), json!(false)],
            vec![json!(-1), json!(901), json!("5"), json!(""), json!(0.5), json!([]), json!({})],
        ),
        ("_dead_letter_queue_messages_ttl", ttls.to_vec(), no_ttls.to_vec()),
        (
            "_max_claim_count",
            vec![json!(1), json!(1_000_000), json!(0), json!(-1), json!(null), json!(true)],
            vec![json!("3"), json!(""), json!(1.5), json!([]), json!({})],
        ),
        (
            "_enable_encrypt_messages",
            vec![json!(false), json!(null)],
            vec![json!("yes"), json!("false"), json!([]), json!({})],
        ),
    ]
}

#[tokio::test]
async fn valid_values_are_accepted_at_creation() {
    let client = TestApp::shared().client();
    for (key, valid, _) in rules() {
        for (n, value) in valid.into_iter().enumerate() {
            let path = format!("/v2/queues/valid-{key}-{n}");
            let what = format!("{key} = {value}");
            client.put(&path, &json!({key: value})).await.expect(201, &what);
        }
    }
}

#[tokio::test]
async fn invalid_values_are_refused_at_creation() {
    let client = TestApp::shared().client();
    for (key, _, invalid) in rules() {
        for value in invalid {
            let what = format!("{key} = {value}");
            let response = client.put("/v2/queues/refused", &json!({key: value})).await;
            response.expect_error(400, "Invalid API request", &what);
        }
    }
    client.send(put("/v2/queues/refused")).await.expect(201, "no refusal created the queue");
}

#[tokio::test]
async fn valid_values_are_accepted_in_a_patch() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for (key, valid, _) in rules() {
        for value in valid {
            let what = format!("{key} = {value}");
            let path = format!("/metadata/{key}");
            let change = json!([{"op": "replace", "path": path, "value": value}]);
            client.patch_queue("q", &change).await.expect(200, &what);
        }
    }
}

#[tokio::test]
async fn invalid_values_are_refused_in_a_patch() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"own": 1})).await;
    for (key, _, invalid) in rules() {
        for value in invalid {
            let what = format!("{key} = {value}");
            let path = format!("/metadata/{key}");
            let change = json!([{"op": "add", "path": path, "value": value}]);
            let response = client.patch_queue("q", &change).await;
            response.expect_error(400, "Invalid request body", &what);
        }
    }
    let shown = client.get("/v2/queues/q").await.json();
    assert_eq!(shown, with_defaults(&json!({"own": 1})), "no refusal changed the queue");
}

#[tokio::test]
async fn reserved_keys_are_shown_as_they_were_set() {
    let client = TestApp::shared().client();
    let metadata = json!({
        "_max_messages_post_size": 1000,
        "_default_message_ttl": 120,
        "_default_message_delay": 5,
        "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 7200,
        "_max_claim_count": 3,
        "_enable_encrypt_messages": false,
        "_flavor": "vanilla",
        "_retry_policy": {"retries_with_no_delay": 2},
    });
    client.create_queue("q", &metadata).await;
    assert_eq!(client.get("/v2/queues/q").await.json(), metadata);
}

#[tokio::test]
async fn a_flavor_and_a_retry_policy_are_shown_only_if_set() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let shown = client.get("/v2/queues/q").await.json();
    assert_eq!(shown.get("_flavor"), None);
    assert_eq!(shown.get("_retry_policy"), None);
    assert_eq!(shown.as_object().unwrap().len(), 7);
}
