//! Dead letters go back to where they came from.

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

const GROUP: &str = "/v2/queues/q/groups/g";

async fn with_dead_letters(messages: usize) -> Client {
    let client = TestApp::shared().client();
    let rule = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 9999});
    client.create_queue("q", &rule).await;
    bury(&client, messages).await;
    client
}

/// Lets messages go to the dead letters, by one claim that is released and another.
async fn bury(client: &Client, messages: usize) {
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

fn without_until(mut answer: Value) -> Value {
    let until = answer.as_object_mut().unwrap().remove("until").unwrap();
    until.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    answer
}

#[tokio::test]
async fn dead_letters_go_back_to_their_queue() {
    let client = with_dead_letters(3).await;
    let answer = client.send(post("/v2/queues/dead/redrive")).await.expect(200, "redrive");
    let expected = json!({"redriven": 3, "stranded": 0, "more": false});
    assert_eq!(without_until(answer.json()), expected);
    assert_eq!(client.counts("dead").await, [0, 0, 0]);
    let claim = client.claim("q", 20).await.unwrap();
    assert_eq!(claim.messages.len(), 3);
    for (n, message) in claim.messages.iter().enumerate() {
        assert_eq!(message["body"], n);
        assert_eq!(message["ttl"], 600);
    }
}

#[tokio::test]
async fn a_call_goes_on_where_the_last_one_ended() {
    let client = with_dead_letters(50).await;
    let mut calls = Vec::new();
    loop {
        let answer = redrive(&client, json!({"limit": 20})).await;
        calls.push(answer["redriven"].as_u64().unwrap());
        if answer["more"] == false {
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
async fn a_rate_lets_them_come_one_by_one() {
    let client = with_dead_letters(40).await;
    let before = jiff::Timestamp::now();
    let answer = redrive(&client, json!({"rate": 1, "limit": 30})).await;
    let until: jiff::Timestamp = answer["until"].as_str().unwrap().parse().unwrap();
    let after = until.duration_since(before).as_secs();
    // To the second, and the server may have taken its time.
    assert!((28..=40).contains(&after), "{after} s: the last comes 29 seconds after the first");
    // The next call keeps the pace.
    redrive(&client, json!({"rate": 1})).await;
    let claimed = client.claim("q", 20).await.unwrap();
    assert!(claimed.messages.len() < 20, "the others come later");
    assert_eq!(client.counts("q").await[2], 40);
    let scheduled = client.list("q", "echo=true&scheduled=true&limit=20").await;
    assert_eq!(scheduled["messages"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_group_gets_back_what_it_gave_up() {
    let client = TestApp::shared().client();
    let rule = json!({"dead_letter_queue": "dead", "max_claim_count": 1});
    client.put(GROUP, &rule).await.expect(201, "group");
    client.post_bodies("q", [json!(1)]).await;
    for _ in 0..2 {
        let answer = client.send(post(format!("{GROUP}/claims"))).await;
        if answer.status == 201 {
            let path = answer.header("location").unwrap().to_owned();
            client.delete(path).await.expect(204, "release");
        }
    }
    assert_eq!(client.counts("dead").await, [1, 0, 1]);
    assert_eq!(redrive(&client, json!({})).await["redriven"], 1);
    let claim = client.send(post(format!("{GROUP}/claims"))).await.expect(201, "again").json();
    assert_eq!(claim["messages"][0]["body"], 1);
    assert_eq!(client.counts("q").await, [1, 0, 1], "the queue has the first one only");
}

#[tokio::test]
async fn what_has_no_home_stays() {
    let client = with_dead_letters(2).await;
    client.delete("/v2/queues/q").await.expect(204, "delete");
    let stranded = json!({"redriven": 0, "stranded": 2, "more": false});
    assert_eq!(without_until(redrive(&client, json!({})).await), stranded);
    let nothing = json!({"redriven": 0, "stranded": 0, "more": false});
    assert_eq!(without_until(redrive(&client, json!({})).await), nothing);
    assert_eq!(client.counts("dead").await, [2, 0, 2]);
}

#[tokio::test]
async fn bad_terms_are_refused() {
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
        let answer = client.post("/v2/queues/dead/redrive", &body).await;
        answer.expect_error(400, title, &body.to_string());
    }
    let missing = client.send(post("/v2/queues/none/redrive")).await;
    missing.expect_error(404, "Not found", "no such queue");
    assert_eq!(client.counts("dead").await, [1, 0, 1], "nothing has changed");
}
