//! Posting messages: validation, its order, and defaults.

use std::time::Instant;

use serde_json::{Value, json};
use tests::{Client, Row, TestApp, check, post};

const BAD_BODY: &str = "Invalid request body";
const BAD_VALUE: &str = "Invalid API request";

fn post_one(queue: &str, message: &Value) -> tests::Call {
    post(format!("/v2/queues/{queue}/messages")).json(&json!({"messages": [message]}))
}

/// Creates a queue and returns whether it existed before.
async fn existed(client: &Client, queue: &str) -> bool {
    client.put(format!("/v2/queues/{queue}"), &json!({})).await.status == 204
}

#[tokio::test]
async fn a_post_returns_the_paths_of_its_messages() {
    let client = TestApp::shared().client();
    let body = json!({"messages": [{"body": "a", "ttl": 100}, {"body": "b"}, {"body": null}]});
    let posted = client.post("/v2/queues/q/messages", &body).await.expect(201, "post");
    let response = posted.json();
    assert_eq!(response.as_object().unwrap().len(), 1, "{response}");
    let resources: Vec<_> = response["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    let prefix = "/v2/queues/q/messages/";
    let ids: Vec<_> = resources.iter().map(|path| path.strip_prefix(prefix).unwrap()).collect();
    let location = format!("/v2/queues/q/messages?ids={}", ids.join(","));
    assert_eq!(posted.header("location"), Some(location.as_str()));
    for (resource, expected) in resources.iter().zip([json!("a"), json!("b"), json!(null)]) {
        assert_eq!(client.get(*resource).await.expect(200, resource).json()["body"], expected);
    }
    let found = client.get(location).await.expect(200, "the location").json();
    assert_eq!(found["messages"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn ids_are_32_hex_digits_and_sort_like_the_messages() {
    let client = TestApp::shared().client();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.extend(client.post_bodies("q", (0..=n % 3).map(|m| json!([n, m]))).await);
    }
    for id in &ids {
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        assert!(id.len() == 32 && id.chars().all(hex), "{id}");
        assert_eq!(id[..16], ids[0][..16], "one queue, one incarnation");
    }
    let mut sorted = ids.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, ids);
    let other = client.post_bodies("other", [json!(1)]).await;
    assert_ne!(other[0][..16], ids[0][..16], "another queue, another incarnation");
}

#[tokio::test]
async fn the_request_body_is_validated() {
    let client = TestApp::shared().client();
    let send = |body: &str| post("/v2/queues/q/messages").body(body);
    let rows: [Row; 18] = [
        ("no body", post("/v2/queues/q/messages"), 400, BAD_BODY),
        ("no JSON", send("{messages: []}"), 400, BAD_BODY),
        ("a scalar", send("1"), 400, BAD_BODY),
        ("no `messages`", send("{}"), 400, BAD_VALUE),
        ("another key", send("{\"message\": [{\"body\": 1}]}"), 400, BAD_VALUE),
        ("an array", send("[]"), 400, BAD_VALUE),
        ("an array of messages", send("[{\"body\": 1, \"ttl\": 60}]"), 400, BAD_VALUE),
        ("`messages` is an object", send("{\"messages\": {\"body\": 1}}"), 400, BAD_BODY),
        ("`messages` is a string", send("{\"messages\": \"x\"}"), 400, BAD_BODY),
        ("`messages` is null", send("{\"messages\": null}"), 400, BAD_BODY),
        ("no message", send("{\"messages\": []}"), 400, BAD_VALUE),
        ("no `body`", send("{\"messages\": [{\"ttl\": 60}]}"), 400, BAD_BODY),
        ("no `body` in the second", send("{\"messages\": [{\"body\": 1}, {}]}"), 400, BAD_BODY),
        ("a null body", send("{\"messages\": [{\"body\": null}]}"), 201, ""),
        ("unknown keys", send("{\"messages\": [{\"body\": 1, \"x\": 1}], \"y\": 2}"), 201, ""),
        (
            "types come before ranges",
            send("{\"messages\": [{\"body\": 1, \"ttl\": 1}, {}]}"),
            400,
            BAD_BODY,
        ),
        (
            "a delay that is ignored",
            send("{\"messages\": [{\"body\": 1, \"delay\": \"x\"}]}"),
            201,
            "",
        ),
        (
            "a delay out of range, ignored too",
            send("{\"messages\": [{\"body\": 1, \"delay\": -5}]}"),
            201,
            "",
        ),
    ];
    check(&client, rows).await;
    for element in ["1", "\"x\"", "null", "[]", "[{\"body\": 1}]"] {
        let refused = client.send(send(&format!("{{\"messages\": [{element}]}}"))).await;
        assert_eq!(refused.status, 400, "{element} is no message: {}", refused.text());
    }
}

#[tokio::test]
async fn the_ttl_is_validated() {
    let client = TestApp::shared().client();
    for ttl in [60, 61, 3600, 1_209_600] {
        let message = json!({"body": 1, "ttl": ttl});
        client.send(post_one("q", &message)).await.expect(201, &ttl.to_string());
    }
    for ttl in [json!(59), json!(0), json!(-1), json!(1_209_601), json!(i64::MAX), json!(true)] {
        let refused = client.send(post_one("q", &json!({"body": 1, "ttl": ttl}))).await;
        refused.expect_error(400, BAD_VALUE, &ttl.to_string());
    }
    for ttl in
        [json!(null), json!(60.0), json!(60.5), json!("60"), json!(""), json!([60]), json!({})]
    {
        let refused = client.send(post_one("q", &json!({"body": 1, "ttl": ttl}))).await;
        refused.expect_error(400, BAD_BODY, &ttl.to_string());
    }
    assert_eq!(client.counts("q").await, [4, 0, 4], "refused messages are not stored");
}

#[tokio::test]
async fn the_delay_is_validated() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": 900})).await;
    for delay in [json!(0), json!(1), json!(900), json!(true)] {
        let message = json!({"body": 1, "delay": delay});
        client.send(post_one("q", &message)).await.expect(201, &delay.to_string());
    }
    for delay in [json!(-1), json!(901), json!(i64::MIN)] {
        let refused = client.send(post_one("q", &json!({"body": 1, "delay": delay}))).await;
        refused.expect_error(400, BAD_VALUE, &delay.to_string());
    }
    for delay in [json!("1"), json!(""), json!(1.5), json!([]), json!({})] {
        let refused = client.send(post_one("q", &json!({"body": 1, "delay": delay}))).await;
        refused.expect_error(400, BAD_BODY, &delay.to_string());
    }
}

#[tokio::test]
async fn a_post_is_at_most_256_kib() {
    let client = TestApp::shared().client();
    let body = |size: usize| {
        let frame = "{\"messages\":[{\"body\":\"\"}]}".len();
        format!("{{\"messages\":[{{\"body\":\"{}\"}}]}}", "x".repeat(size - frame))
    };
    assert_eq!(body(262_144).len(), 262_144);
    let send = |body: String| post("/v2/queues/q/messages").body(body);
    let rows: [Row; 3] = [
        ("the maximum", send(body(262_144)), 201, ""),
        ("a byte more", send(body(262_145)), 400, BAD_VALUE),
        ("no JSON, but too much of it", send("x".repeat(262_145)), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_queue_can_have_a_smaller_limit() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_max_messages_post_size": 100})).await;
    let body = |size: usize| {
        let frame = "{\"messages\":[{\"body\":\"\"}]}".len();
        format!("{{\"messages\":[{{\"body\":\"{}\"}}]}}", "x".repeat(size - frame))
    };
    let send = |body: String| post("/v2/queues/q/messages").body(body);
    let rows: [Row; 2] = [
        ("the maximum", send(body(100)), 201, ""),
        ("a byte more", send(body(101)), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
    let wider = json!([{"op": "remove", "path": "/metadata/_max_messages_post_size"}]);
    client.patch_queue("q", &wider).await.expect(200, "remove the limit");
    client.send(send(body(101))).await.expect(201, "the limit is removed");
}

#[tokio::test]
async fn the_size_is_checked_before_the_content() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_max_messages_post_size": 10})).await;
    let refused = client.send(post("/v2/queues/q/messages").body("no JSON at all")).await;
    refused.expect_error(400, BAD_VALUE, "too large and no JSON");
    let refused = client.send(post("/v2/queues/q/messages").body("no JSON")).await;
    refused.expect_error(400, BAD_BODY, "small, and no JSON");
}

#[tokio::test]
async fn a_refused_post_creates_its_queue() {
    let client = TestApp::shared().client();
    let send = |queue: &str, body: String| post(format!("/v2/queues/{queue}/messages")).body(body);
    let calls = [
        ("accepted", send("accepted", "{\"messages\":[{\"body\":1}]}".into()), 201),
        ("no-json", send("no-json", "nonsense".into()), 400),
        ("no-messages", send("no-messages", "{}".into()), 400),
        ("bad-ttl", send("bad-ttl", "{\"messages\":[{\"body\":1,\"ttl\":1}]}".into()), 400),
        ("too-large", send("too-large", "x".repeat(262_145)), 400),
    ];
    for (queue, call, status) in calls {
        client.send(call).await.expect(status, queue);
        assert!(existed(&client, queue).await, "{queue} was not created");
    }
}

#[tokio::test]
async fn the_default_ttl_is_that_of_the_queue_or_an_hour() {
    let client = TestApp::shared().client();
    client.create_queue("own", &json!({"_default_message_ttl": 77})).await;
    client.create_queue("plain", &json!({})).await;
    for (queue, ttl) in [("own", 77), ("plain", 3600), ("created-by-the-post", 3600)] {
        client.post_messages(queue, [json!({"body": 1}), json!({"body": 1, "ttl": 99})]).await;
        let messages = client.list_all(queue).await;
        assert_eq!(messages[0]["ttl"], ttl, "{queue}");
        assert_eq!(messages[1]["ttl"], 99, "{queue}");
    }
    let change = json!([{"op": "replace", "path": "/metadata/_default_message_ttl", "value": 88}]);
    client.patch_queue("own", &change).await.expect(200, "change the default");
    client.post_messages("own", [json!({"body": 1})]).await;
    assert_eq!(client.list_all("own").await[2]["ttl"], 88, "a change applies to later posts");
}

#[tokio::test]
async fn a_message_shows_exactly_five_keys() {
    let client = TestApp::shared().client();
    let start = Instant::now();
    let message =
        json!({"body": {"a": 1}, "ttl": 100, "id": "x", "href": "y", "age": 9, "checksum": "z"});
    let id = client.post_messages("q", [message]).await.remove(0);
    let shown = client.list_all("q").await.remove(0);
    let age = shown["age"].as_u64().expect("an age in whole seconds");
    let href = format!("/v2/queues/q/messages/{id}");
    assert_eq!(shown, json!({"id": id, "href": href, "ttl": 100, "age": age, "body": {"a": 1}}));
    assert!(age <= start.elapsed().as_secs() + 1, "{shown}");
}

#[tokio::test]
async fn a_post_of_many_messages_keeps_their_order() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..1500).map(|n| json!(n))).await;
    assert_eq!(ids.len(), 1500);
    let listed = client.list_all("q").await;
    for (n, (message, id)) in listed.iter().zip(&ids).enumerate() {
        assert_eq!((&message["body"], &message["id"]), (&json!(n), &json!(id)));
    }
    assert_eq!(listed.len(), 1500);
}

#[tokio::test]
async fn a_refused_post_stores_none_of_its_messages() {
    let client = TestApp::shared().client();
    let messages = json!({"messages": [{"body": 1}, {"body": 2}, {"body": 3, "ttl": 1}]});
    client.post("/v2/queues/q/messages", &messages).await.expect_error(
        400,
        BAD_VALUE,
        "an invalid ttl",
    );
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}
