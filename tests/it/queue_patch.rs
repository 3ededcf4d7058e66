//! Changing the metadata of a queue with a list of patch operations.

use serde_json::{Value, json};
use tests::{Client, PATCH_TYPE, Row, TestApp, call, check, patch};

use crate::queues::{defaults, with_defaults};

const BAD_BODY: &str = "Invalid request body";
const CONFLICT: &str = "Resource conflict";

async fn with_metadata(metadata: &Value) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("q", metadata).await;
    client
}

#[tokio::test]
async fn only_one_content_type_is_accepted() {
    let client = with_metadata(&json!({})).await;
    let of = |kind: &str| call("PATCH", "/v2/queues/q").header("content-type", kind).body("[]");
    let (with_charset, title) =
        (format!("{PATCH_TYPE}; charset=utf-8"), "415 Unsupported Media Type");
    let rows: [Row; 7] = [
        ("the right one", of(PATCH_TYPE), 200, ""),
        ("none", call("PATCH", "/v2/queues/q").body("[]"), 415, title),
        ("none and no body", call("PATCH", "/v2/queues/q"), 415, title),
        ("JSON", of("application/json"), 415, title),
        ("another kind of patch", of("application/json-patch+json"), 415, title),
        ("with a parameter", of(&with_charset), 415, title),
        ("on a missing queue", call("PATCH", "/v2/queues/missing").body("[]"), 415, title),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_size_is_checked_before_the_content_type() {
    let client = with_metadata(&json!({})).await;
    let huge = " ".repeat(65_537);
    let rows: [Row; 3] = [
        ("right type", patch("/v2/queues/q").body(huge.clone()), 400, BAD_BODY),
        ("wrong type", call("PATCH", "/v2/queues/q").body(huge.clone()), 400, BAD_BODY),
        ("missing queue", patch("/v2/queues/missing").body(huge), 400, BAD_BODY),
    ];
    check(&client, rows).await;
    let full = format!("[]{}", " ".repeat(65_534));
    client.send(patch("/v2/queues/q").body(full)).await.expect(200, "the maximum");
}

#[tokio::test]
async fn the_body_is_validated_before_the_queue_is_looked_up() {
    let client = TestApp::shared().client();
    let rows: [Row; 4] = [
        ("no body", patch("/v2/queues/missing"), 400, BAD_BODY),
        ("an invalid operation", patch("/v2/queues/missing").body("[1]"), 400, BAD_BODY),
        ("no operation", patch("/v2/queues/missing").body("[]"), 404, "Not found"),
        (
            "a valid operation",
            patch("/v2/queues/missing").body("[{\"op\":\"remove\",\"path\":\"/metadata/a\"}]"),
            404,
            "Not found",
        ),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn invalid_operations_are_refused() {
    let client = with_metadata(&json!({"a": 1})).await;
    let operations = [
        ("a number", json!(1)),
        ("a string", json!("add")),
        ("an array", json!([])),
        ("null", json!(null)),
        ("an empty object", json!({})),
        ("no op", json!({"path": "/metadata/a", "value": 1})),
        ("an unknown op", json!({"op": "test", "path": "/metadata/a", "value": 1})),
        ("a move", json!({"op": "move", "from": "/metadata/a", "path": "/metadata/b"})),
        ("an op in capitals", json!({"op": "ADD", "path": "/metadata/a", "value": 1})),
        ("an op that is no string", json!({"op": 1, "path": "/metadata/a", "value": 1})),
        ("no path", json!({"op": "add", "value": 1})),
        ("a path that is no string", json!({"op": "add", "path": 1, "value": 1})),
        ("a path that is null", json!({"op": "remove", "path": null})),
        ("no value to add", json!({"op": "add", "path": "/metadata/a"})),
        ("no value to replace by", json!({"op": "replace", "path": "/metadata/a"})),
    ];
    for (what, operation) in operations {
        let refused = client.patch_queue("q", &json!([operation])).await;
        refused.expect_error(400, BAD_BODY, what);
    }
    assert_eq!(client.get("/v2/queues/q").await.json(), with_defaults(&json!({"a": 1})));
}

#[tokio::test]
async fn invalid_paths_are_refused() {
    let client = with_metadata(&json!({"a": 1})).await;
    let paths = [
        "",
        "/",
        "a",
        "metadata/a",
        "/metadata",
        "/metadata/",
        "/metadata/a/",
        "//metadata/a",
        "/metadata//a",
        "/metadata/ /",
        "/metadata/ ",
        "/ /a",
        "/metadata/a/b",
        "/a",
        "/metadata/a~",
        "/metadata/~2",
        "/metadata/a~b",
        "#/metadata/a",
    ];
    for path in paths {
        for op in ["add", "replace", "remove"] {
            let operation = json!([{"op": op, "path": path, "value": 1}]);
            let what = format!("{op} {path:?}");
            client.patch_queue("q", &operation).await.expect_error(400, BAD_BODY, &what);
        }
    }
    for op in ["add", "replace"] {
        let operation = json!([{"op": op, "path": "/elsewhere/a", "value": 1}]);
        client.patch_queue("q", &operation).await.expect_error(400, BAD_BODY, "a wrong root");
    }
}

#[tokio::test]
async fn paths_are_parsed_leniently() {
    let cases = [
        ("the root in capitals", json!({"op": "add", "path": "/METADATA/b", "value": 2}), "b"),
        ("blanks around", json!({"op": "add", "path": "/ metadata / b ", "value": 2}), "b"),
        ("a slash", json!({"op": "add", "path": "/metadata/b~1c", "value": 2}), "b/c"),
        ("a tilde", json!({"op": "add", "path": "/metadata/b~0c", "value": 2}), "b~c"),
        ("a tilde and a one", json!({"op": "add", "path": "/metadata/b~01", "value": 2}), "b~1"),
    ];
    for (what, operation, key) in cases {
        let client = with_metadata(&json!({})).await;
        let patched = client.patch_queue("q", &json!([operation])).await.expect(200, what);
        assert_eq!(patched.json(), with_defaults(&json!({key: 2})), "{what}");
    }
    let client = with_metadata(&json!({"a": 1})).await;
    let removal = json!([{"op": "remove", "path": "/anything/a"}]);
    let patched = client.patch_queue("q", &removal).await.expect(200, "remove from any root");
    assert_eq!(patched.json(), defaults());
}

/// Each row is an operation, a key, its value before, and its value afterwards or a conflict.
#[tokio::test]
async fn each_operation_has_the_specified_result() {
    let reserved = "_default_message_ttl";
    let conflict = None;
    let table = [
        ("add", "own", Some(1), Some(json!(600))),
        ("add", "own", None, Some(json!(600))),
        ("add", reserved, Some(60), Some(json!(600))),
        ("add", reserved, None, Some(json!(600))),
        ("replace", "own", Some(1), Some(json!(600))),
        ("replace", "own", None, conflict.clone()),
        ("replace", reserved, Some(60), Some(json!(600))),
        ("replace", reserved, None, Some(json!(600))),
        ("remove", "own", Some(1), Some(Value::Null)),
        ("remove", "own", None, conflict),
        ("remove", reserved, Some(60), Some(json!(3600))),
        ("remove", reserved, None, Some(json!(3600))),
    ];
    for (op, key, before, after) in table {
        let metadata = before.map_or(json!({}), |value| json!({key: value}));
        let client = with_metadata(&metadata).await;
        let operation = json!([{"op": op, "path": format!("/metadata/{key}"), "value": 600}]);
        let response = client.patch_queue("q", &operation).await;
        let what = format!("{op} {key}, before {before:?}");
        let Some(after) = after else {
            response.expect_error(409, CONFLICT, &what);
            continue;
        };
        let response = response.expect(200, &what).json();
        assert_eq!(response[key], after, "{what}");
        assert_eq!(response.get(key).is_some(), !after.is_null(), "{what}");
        assert_eq!(
            client.get("/v2/queues/q").await.json(),
            response,
            "{what}: the stored metadata"
        );
    }
}

#[tokio::test]
async fn unset_reserved_keys_can_be_removed_and_replaced() {
    let client = with_metadata(&json!({})).await;
    for (key, value) in defaults().as_object().unwrap() {
        let path = format!("/metadata/{key}");
        let removal = json!([{"op": "remove", "path": path}]);
        let response = client.patch_queue("q", &removal).await.expect(200, key);
        assert_eq!(response.json(), defaults(), "remove {key}");
        let change = json!([{"op": "replace", "path": path, "value": value}]);
        client.patch_queue("q", &change).await.expect(200, key);
    }
    for key in ["_flavor", "_retry_policy", "_unheard_of"] {
        for op in ["remove", "replace"] {
            let path = format!("/metadata/{key}");
            let change = json!([{"op": op, "path": path, "value": {}}]);
            client.patch_queue("q", &change).await.expect_error(409, CONFLICT, key);
        }
    }
}

#[tokio::test]
async fn operations_are_applied_in_order() {
    let client = with_metadata(&json!({"a": 1, "c": 3})).await;
    let operations = json!([
        {"op": "add", "path": "/metadata/b", "value": 1},
        {"op": "replace", "path": "/metadata/b", "value": {"x": [1]}},
        {"op": "remove", "path": "/metadata/a"},
        {"op": "add", "path": "/metadata/a", "value": null},
        {"op": "remove", "path": "/metadata/c"},
    ]);
    let patched = client.patch_queue("q", &operations).await.expect(200, "patch").json();
    assert_eq!(patched, with_defaults(&json!({"a": null, "b": {"x": [1]}})));
    let nothing = client.patch_queue("q", &json!([])).await.expect(200, "no operation").json();
    assert_eq!(nothing, patched);
}

#[tokio::test]
async fn operations_are_atomic() {
    let client = with_metadata(&json!({"a": 1})).await;
    let first = json!({"op": "add", "path": "/metadata/b", "value": 2});
    let second = [
        ("a conflict", json!({"op": "remove", "path": "/metadata/z"}), 409, CONFLICT),
        ("bad syntax", json!({"op": "remove", "path": "z"}), 400, BAD_BODY),
        (
            "a broken rule",
            json!({"op": "add", "path": "/metadata/_default_message_ttl", "value": 1}),
            400,
            BAD_BODY,
        ),
    ];
    for (what, second, status, title) in second {
        let refused = client.patch_queue("q", &json!([first, second])).await;
        refused.expect_error(status, title, what);
        let shown = client.get("/v2/queues/q").await.json();
        assert_eq!(shown, with_defaults(&json!({"a": 1})), "{what}");
    }
    let conflict_first = json!([{"op": "remove", "path": "/metadata/z"}, {"op": "add"}]);
    let refused = client.patch_queue("q", &conflict_first).await;
    refused.expect_error(400, BAD_BODY, "syntax is checked before operations are applied");
}

#[tokio::test]
async fn the_result_is_validated() {
    let client = with_metadata(&json!({})).await;
    let there_and_back = json!([
        {"op": "add", "path": "/metadata/_default_message_ttl", "value": 1},
        {"op": "replace", "path": "/metadata/_default_message_ttl", "value": 100},
    ]);
    let patched =
        client.patch_queue("q", &there_and_back).await.expect(200, "a valid result").json();
    assert_eq!(patched["_default_message_ttl"], 100);
}
