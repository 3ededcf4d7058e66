//! Claims: creating, showing, renewing and releasing them.

use std::time::Instant;

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

async fn with_messages(count: usize) -> (Client, Vec<String>) {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..count).map(|n| json!(n))).await;
    (client, ids)
}

fn path(claim: &str) -> String {
    format!("/v2/queues/q/claims/{claim}")
}

#[tokio::test]
async fn creating_a_claim_returns_its_location_and_messages() {
    let (client, ids) = with_messages(3).await;
    let body = json!({"ttl": 100, "grace": 60});
    let claimed = client.post("/v2/queues/q/claims?limit=2", &body).await.expect(201, "claim");
    let location = claimed.header("location").unwrap();
    let id = location.strip_prefix("/v2/queues/q/claims/").expect("a path to the claim");
    assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{id}");
    let response = claimed.json();
    assert_eq!(response.as_object().unwrap().len(), 1, "{response}");
    let messages = response["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2);
    for (n, message) in messages.iter().enumerate() {
        let href = format!("/v2/queues/q/messages/{}?claim_id={id}", ids[n]);
        let age = message["age"].as_u64().expect("an age in whole seconds");
        let expected = json!({"id": ids[n], "href": href, "ttl": 600, "age": age, "body": n});
        assert_eq!(*message, expected);
    }
}

#[tokio::test]
async fn a_claim_takes_ten_messages_by_default() {
    let (client, ids) = with_messages(35).await;
    let claimed = client.send(post("/v2/queues/q/claims")).await.expect(201, "no body").json();
    assert_eq!(claimed["messages"].as_array().unwrap().len(), 10);
    assert_eq!(client.claim("q", 20).await.unwrap().ids(), ids[10..30]);
    assert_eq!(client.claim("q", 20).await.unwrap().ids(), ids[30..], "the rest");
    assert!(client.claim("q", 20).await.is_none());
}

#[tokio::test]
async fn a_claim_without_free_messages_returns_no_content() {
    let client = TestApp::shared().client();
    client.create_queue("empty", &json!({})).await;
    for queue in ["empty", "missing"] {
        let path = format!("/v2/queues/{queue}/claims");
        let response = client.post(path, &json!({"ttl": 60, "grace": 60})).await.expect(204, queue);
        assert!(response.body.is_empty(), "{queue}");
        assert_eq!(response.header("location"), None, "{queue}");
    }
    let queues = client.get("/v2/queues").await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1, "claiming creates no queue");
}

#[tokio::test]
async fn a_claim_takes_the_oldest_messages_of_any_client() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(0)]).await;
    client.other_client().post_bodies("q", [json!(1)]).await;
    client.post_bodies("q", [json!(2)]).await;
    let first = client.claim("q", 2).await.expect("messages are free");
    let bodies: Vec<_> = first.messages.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!(0), &json!(1)]);
}

#[tokio::test]
async fn a_claimed_message_is_not_claimed_again() {
    let (client, ids) = with_messages(5).await;
    let first = client.claim("q", 2).await.expect("messages are free");
    let second = client.claim("q", 20).await.expect("messages are free");
    assert_eq!((first.ids(), second.ids()), (ids[..2].to_vec(), ids[2..].to_vec()));
    assert_ne!(first.id, second.id);
    assert!(client.claim("q", 1).await.is_none());
}

#[tokio::test]
async fn a_claim_can_be_shown() {
    let (client, ids) = with_messages(3).await;
    let start = Instant::now();
    let claim = client.claim_with("q", 2, &json!({"ttl": 77, "grace": 60})).await.unwrap();
    let shown = client.get(path(&claim.id)).await.expect(200, "get");
    assert_eq!(shown.header("content-type"), Some("application/json"));
    let shown = shown.json();
    assert_age(&shown, start);
    assert_eq!(shown["ttl"], 77);
    assert_eq!(shown["href"], path(&claim.id));
    assert_eq!(shown.as_object().unwrap().len(), 4, "age, ttl, href and messages: {shown}");
    let found: Vec<_> =
        shown["messages"].as_array().unwrap().iter().map(|message| &message["id"]).collect();
    assert_eq!(found, [&json!(ids[0]), &json!(ids[1])]);
    for (shown, claimed) in shown["messages"].as_array().unwrap().iter().zip(&claim.messages) {
        for key in ["id", "href", "ttl", "body"] {
            assert_eq!(shown[key], claimed[key], "{key}");
        }
        assert_eq!(shown.as_object().unwrap().len(), 5, "{shown}");
    }
}

#[tokio::test]
async fn a_claim_has_defaults() {
    let bodies = [
        ("no body", None),
        ("an empty object", Some(json!({}))),
        ("nulls", Some(json!({"ttl": null, "grace": null}))),
        ("unknown keys", Some(json!({"limit": 1, "age": "x"}))),
        ("grace alone", Some(json!({"grace": 100}))),
    ];
    for (what, body) in bodies {
        let (client, _) = with_messages(1).await;
        let call = post("/v2/queues/q/claims");
        let call = if let Some(body) = &body { call.json(body) } else { call };
        let claimed = client.send(call).await.expect(201, what);
        let shown = client.get(claimed.header("location").unwrap()).await.expect(200, what);
        assert_eq!(shown.json()["ttl"], 300, "{what}");
    }
}

#[tokio::test]
async fn a_message_outlives_its_claim() {
    for (message_ttl, body, expected) in [
        (600, json!({"ttl": 777, "grace": 60}), 837),
        (60, json!({"ttl": 61, "grace": 60}), 121),
        (60, json!({}), 360),
        (300, json!({"ttl": 60, "grace": 60}), 300),
        (1200, json!({"ttl": 700, "grace": 43_200}), 1200),
    ] {
        let what = format!("a message of {message_ttl} s claimed with {body}");
        let client = TestApp::shared().client();
        client.post_messages("q", [json!({"body": 1, "ttl": message_ttl})]).await;
        let claim = client.claim_with("q", 1, &body).await.expect("a message is free");
        assert_ttl(&claim.messages[0], expected, &what);
        let shown = client.get(path(&claim.id)).await.expect(200, &what).json();
        assert_ttl(&shown["messages"][0], expected, &what);
        assert_ttl(&client.list_all("q").await[0], expected, &what);
        client.release("q", &claim.id).await;
        assert_ttl(&client.list_all("q").await[0], expected, &format!("{what}, released"));
    }
}

/// Checks that the age of a claim is at most the time since `start`.
#[track_caller]
fn assert_age(claim: &Value, start: Instant) {
    let age = claim["age"].as_u64().expect("an age in whole seconds");
    assert!(age <= start.elapsed().as_secs() + 1, "{claim}");
}

/// Checks the ttl of a message. A ttl that the claim extended counts from the claim, so it may be
/// larger by the age of the message.
#[track_caller]
fn assert_ttl(message: &Value, expected: u64, what: &str) {
    let (ttl, age) = (message["ttl"].as_u64().unwrap(), message["age"].as_u64().unwrap());
    assert!((expected..=expected + age + 1).contains(&ttl), "{what}: {message}");
}

#[tokio::test]
async fn a_released_message_is_free() {
    let (client, ids) = with_messages(3).await;
    let claim = client.claim("q", 2).await.expect("messages are free");
    client.release("q", &claim.id).await;
    client.get(path(&claim.id)).await.expect_error(404, "Not found", "a released claim");
    let again = client.claim("q", 3).await.expect("messages are free");
    assert_eq!(again.ids(), ids);
    client.release("q", &claim.id).await;
    assert!(client.claim("q", 3).await.is_none(), "the first claim holds nothing more");
}

#[tokio::test]
async fn a_renewed_claim_has_age_zero_and_the_same_messages() {
    let (client, ids) = with_messages(2).await;
    let claim = client.claim_with("q", 2, &json!({"ttl": 60, "grace": 60})).await.unwrap();
    let renewal = json!({"ttl": 1000, "grace": 100, "unknown": 1});
    let start = Instant::now();
    let renewed = client.patch_claim("q", &claim.id, &renewal).await.expect(204, "renew");
    assert!(renewed.body.is_empty());
    let shown = client.get(path(&claim.id)).await.expect(200, "get").json();
    assert_eq!(shown["ttl"], 1000);
    assert_age(&shown, start);
    let messages = shown["messages"].as_array().unwrap();
    let found: Vec<_> = messages.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    for message in messages {
        assert_ttl(message, 1100, "600 s are less than the claim needs");
    }
    for (what, body) in
        [("an empty object", json!({})), ("nulls", json!({"ttl": null, "grace": null}))]
    {
        client.patch_claim("q", &claim.id, &body).await.expect(204, what);
        assert_eq!(client.get(path(&claim.id)).await.json()["ttl"], 300, "{what}: the default");
    }
}

#[tokio::test]
async fn a_claim_belongs_to_its_queue_and_project() {
    let (client, ids) = with_messages(1).await;
    let claim = client.claim("q", 1).await.expect("a message is free").id;
    client.create_queue("other", &json!({})).await;
    let (stranger, here) = (client.project("another project"), path(&claim));
    for queue in ["other", "missing"] {
        let there = format!("/v2/queues/{queue}/claims/{claim}");
        client.get(&there).await.expect_error(404, "Not found", queue);
        let renewal = client.patch_claim(queue, &claim, &json!({"ttl": 60})).await;
        renewal.expect_error(404, "Not found", queue);
        client.delete(there).await.expect(204, queue);
    }
    stranger.get(&here).await.expect_error(404, "Not found", "another project");
    let renewal = stranger.patch_claim("q", &claim, &json!({"ttl": 60})).await;
    renewal.expect_error(404, "Not found", "another project");
    stranger.delete(&here).await.expect(204, "another project");
    let shown = client.get(&here).await.expect(200, "untouched").json();
    assert_eq!(shown["ttl"], 300);
    assert_eq!(shown["messages"][0]["id"], json!(ids[0]));
}
