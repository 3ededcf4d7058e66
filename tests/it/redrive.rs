//! Redrive: dead letters return to their source queue.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tests::{Client, TestApp, post};

const GROUP: &str = "/v2/queues/q/groups/g";

async fn with_dead_letters(messages: usize) -> Client {
    let client = TestApp::shared().client();
    let rule = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 9999});
    client.create_queue("q", &rule).await;
    dead_letter_all(&client, messages).await;
    client
}

/// Posts messages and dead-letters them: they exceed their claim count at the second claim.
async fn dead_letter_all(client: &Client, messages: usize) {
    for first in (0..messages).step_by(20) {
        let some = (first..messages.min(first + 20)).map(|n| json!({"body": n, "ttl": 600}));
        client.post_messages("q", some).await;
        let claim = client.claim("q", 20).await.unwrap();
        client.release("q", &claim.id).await;
        assert!(client.claim("q", 20).await.is_none());
    }
}

async fn redrive(client: &Client, body: Value) -> Value {
    client.post("/v2/queues/dead/redrive", &body).await.expect(200, "redrive").json()
}

fn without_until(mut response: Value) -> Value {
    until(&response);
    response.as_object_mut().unwrap().remove("until");
    response
}

/// Returns the time at which the last message becomes visible.
fn until(response: &Value) -> Timestamp {
    response["until"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn dead_letters_return_to_their_queue() {
    let client = with_dead_letters(3).await;
    let response = client.send(post("/v2/queues/dead/redrive")).await.expect(200, "redrive");
    let expected = json!({"redriven": 3, "stranded": 0, "more": false});
    assert_eq!(without_until(response.json()), expected);
    assert_eq!(client.counts("dead").await, [0, 0, 0]);
    let claim = client.claim("q", 20).await.unwrap();
    assert_eq!(claim.messages.len(), 3);
    for (n, message) in claim.messages.iter().enumerate() {
        assert_eq!(message["body"], n);
        assert_eq!(message["ttl"], 600);
    }
}

#[tokio::test]
async fn repeated_calls_move_all_messages() {
    let client = with_dead_letters(50).await;
    let mut calls = Vec::new();
    loop {
        let response = redrive(&client, json!({"limit": 20})).await;
        calls.push(response["redriven"].as_u64().unwrap());
        if response["more"] == false {
            break;
        }
    }
    assert_eq!(calls, [20, 20, 10]);
    let popped: Vec<_> = client.list_all("q").await;
    let bodies: Vec<_> = popped.iter().map(|message| message["body"].clone()).collect();
    assert_eq!(bodies, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
async fn a_rate_makes_messages_visible_one_by_one() {
    const SECOND: SignedDuration = SignedDuration::from_secs(1);
    let client = with_dead_letters(40).await;
    let before = Timestamp::now();
    let first = until(&redrive(&client, json!({"rate": 1, "limit": 30})).await);
    let after = Timestamp::now();
    // The time is rounded to a second, and is counted from a moment between the two.
    let expected = before + SECOND * 28..=after + SECOND * 30;
    assert!(expected.contains(&first), "{first}: the last is visible 29 seconds after the first");
    // The next call continues the schedule.
    let last = until(&redrive(&client, json!({"rate": 1})).await);
    assert!(last >= first + SECOND * 9, "{last}: the last is visible 10 seconds after {first}");

    let claimed = client.claim("q", 20).await.unwrap().messages.len();
    let visible = usize::try_from((Timestamp::now() - before).get_seconds()).unwrap() + 2;
    assert!(claimed <= visible, "{claimed} were claimed when {visible} could be visible");
    assert_eq!(client.counts("q").await[2], 40);
    let scheduled = client.list("q", "echo=true&scheduled=true&limit=20").await;
    let scheduled = scheduled["messages"].as_array().unwrap().len();
    let visible = usize::try_from((Timestamp::now() - before).get_seconds()).unwrap() + 2;
    let hidden = 40_usize.saturating_sub(visible).min(20);
    assert!(scheduled >= hidden, "{scheduled} were listed when {hidden} had to be hidden");
}

#[tokio::test]
async fn a_dead_letter_of_a_group_returns_to_the_group() {
    let client = TestApp::shared().client();
    let rule = json!({"dead_letter_queue": "dead", "max_claim_count": 1});
    client.put(GROUP, &rule).await.expect(201, "group");
    client.post_bodies("q", [json!(1)]).await;
    for _ in 0..2 {
        let response = client.send(post(format!("{GROUP}/claims"))).await;
        if response.status == 201 {
            let path = response.header("location").unwrap().to_owned();
            client.delete(path).await.expect(204, "release");
        }
    }
    assert_eq!(client.counts("dead").await, [1, 0, 1]);
    assert_eq!(redrive(&client, json!({})).await["redriven"], 1);
    let claim = client.send(post(format!("{GROUP}/claims"))).await.expect(201, "again").json();
    assert_eq!(claim["messages"][0]["body"], 1);
    assert_eq!(client.counts("q").await, [1, 0, 1], "the queue itself has only the first message");
}

#[tokio::test]
async fn orphaned_dead_letters_stay() {
    let client = with_dead_letters(2).await;
    client.delete("/v2/queues/q").await.expect(204, "delete");
    let orphaned = json!({"redriven": 0, "stranded": 2, "more": false});
    assert_eq!(without_until(redrive(&client, json!({})).await), orphaned);
    let nothing = json!({"redriven": 0, "stranded": 0, "more": false});
    assert_eq!(without_until(redrive(&client, json!({})).await), nothing);
    assert_eq!(client.counts("dead").await, [2, 0, 2]);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let client = with_dead_letters(1).await;
    for (body, title) in [
        (json!({"limit": 0}), "Invalid API request"),
        (json!({"limit": 10_001}), "Invalid API request"),
        (json!({"rate": -1}), "Invalid API request"),
        (json!({"rate": 0}), "Invalid API request"),
        (json!({"speed": 1}), "Invalid API request"),
        (json!({"limit": "1"}), "Invalid request body"),
        (json!({"rate": 1.5}), "Invalid request body"),
        (json!({"rate": null}), "Invalid request body"),
        (json!([]), "Invalid request body"),
    ] {
        let response = client.post("/v2/queues/dead/redrive", &body).await;
        response.expect_error(400, title, &body.to_string());
    }
    let missing = client.send(post("/v2/queues/none/redrive")).await;
    missing.expect_error(404, "Not found", "a missing queue");
    assert_eq!(client.counts("dead").await, [1, 0, 1], "a refused redrive moves nothing");
}
