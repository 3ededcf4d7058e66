//! Scheduled messages: posted now, delivered at a given time.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

async fn post_at(client: &Client, time: &Value) -> tests::Response {
    let message = json!({"body": 1, "ttl": 600, "deliver_at": time});
    client.post("/v2/queues/q/messages", &json!({"messages": [message]})).await
}

/// Returns the time this many seconds from now.
#[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
fn ahead(seconds: u64) -> Value {
    let time = jiff::Timestamp::now() + Duration::from_secs(seconds);
    json!(time.to_string())
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
async fn a_scheduled_message_is_delivered_at_its_time() {
    let client = TestApp::shared().client();
    let time = ahead(2);
    post_at(&client, &time).await.expect(201, "post");
    let claim = client.send(post("/v2/queues/q/claims?wait=30")).await;
    let now = jiff::Timestamp::now();
    let claimed = claim.expect(201, "at its time").json();
    assert!(now >= time.as_str().unwrap().parse().unwrap(), "claimed before {time}, at {now}");
    assert_eq!(claimed["messages"][0]["ttl"], 600);
}

#[tokio::test]
async fn a_scheduled_message_is_not_delivered_before_its_time() {
    let client = TestApp::shared().client();
    post_at(&client, &ahead(3_000)).await.expect(201, "post");
    assert!(client.claim("q", 1).await.is_none(), "claimed");
    assert!(client.pop("q", 1).await.is_empty(), "popped");
}

#[tokio::test]
async fn a_time_in_the_past_means_now() {
    let client = TestApp::shared().client();
    post_at(&client, &json!("2001-02-03T04:05:06+02:00")).await.expect(201, "post");
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_scheduled_message_is_listed_and_can_be_deleted() {
    let client = TestApp::shared().client();
    let posted = post_at(&client, &ahead(3_000)).await.expect(201, "post").json();
    // A queue without a delay lists all its messages.
    assert_eq!(client.bodies("q", "echo=true").await, [1]);
    client.delete(posted["resources"][0].as_str().unwrap()).await.expect(204, "delete");
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_queue_with_a_delay_hides_scheduled_messages() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_default_message_delay": 1})).await;
    post_at(&client, &ahead(3_000)).await.expect(201, "post");
    assert_eq!(client.bodies("q", "echo=true").await, Vec::<Value>::new());
    assert_eq!(client.bodies("q", "echo=true&include_delayed=true").await, [1]);
    let both = json!({"body": 1, "deliver_at": ahead(60), "delay": 5});
    let refused = client.post("/v2/queues/q/messages", &json!({"messages": [both]})).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn an_invalid_time_is_refused() {
    let client = TestApp::shared().client();
    let bad = [
        json!(1_900_000_000),
        json!(null),
        json!(""),
        json!("tomorrow"),
        json!("2030-01-01"),
        json!("2030-01-01T00:00:00"),
        json!("2030-02-30T00:00:00Z"),
        json!("9999-01-01T00:00:00Z"),
        ahead(1_209_700),
    ];
    for time in bad {
        let response = post_at(&client, &time).await;
        assert_eq!(response.status, 400, "{time}: {}", response.text());
        assert!(response.text().contains("deliver_at"), "{}", response.text());
    }
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn scheduled_messages_can_be_listed_alone() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(0)]).await;
    let all = (1..=3).map(|n| json!({"body": n, "ttl": 600, "deliver_at": ahead(3_000)}));
    client.post_messages("q", all).await;
    let page = client.list("q", "echo=true&scheduled=true&limit=2").await;
    let next = page["links"][0]["href"].as_str().unwrap();
    assert!(next.contains("scheduled=true"), "{next}");
    let rest = client.get(next).await.expect(200, "next").json();
    let bodies = |page: &Value| -> Vec<Value> {
        let messages = page["messages"].as_array().unwrap();
        messages.iter().map(|message| message["body"].clone()).collect()
    };
    assert_eq!([bodies(&page), bodies(&rest)].concat(), [1, 2, 3]);
    let none = client.bodies("q", "echo=true&scheduled=true&include_claimed=true&marker=").await;
    assert_eq!(none, [1, 2, 3], "claimed ones are visible");
    let wrong = client.get("/v2/queues/q/messages?scheduled=2").await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

#[tokio::test]
async fn a_scheduled_message_can_be_rescheduled() {
    let client = TestApp::shared().client();
    let posted = post_at(&client, &ahead(3_000)).await.expect(201, "post").json();
    let path = format!("{}/reschedule", posted["resources"][0].as_str().unwrap());
    let to = |time: Value| post(&path).json(&json!({"deliver_at": time}));
    client.send(to(ahead(2_000))).await.expect(204, "later");
    assert!(client.claim("q", 1).await.is_none(), "not yet");
    client.send(to(json!("2001-02-03T04:05:06Z"))).await.expect(204, "at once");
    let claim = client.claim("q", 1).await.unwrap();
    assert_eq!(claim.messages[0]["ttl"], 600);
    client.send(to(ahead(60))).await.expect_error(409, "Resource conflict", "it is visible");
}

#[tokio::test]
async fn rescheduling_requires_a_valid_time() {
    let client = TestApp::shared().client();
    let posted = post_at(&client, &ahead(3_000)).await.expect(201, "post").json();
    let path = format!("{}/reschedule", posted["resources"][0].as_str().unwrap());
    for bad in [json!("tomorrow"), json!(1_900_000_000), Value::Null, json!("2030-01-31")] {
        let refused = client.send(post(&path).json(&json!({"deliver_at": bad}))).await;
        refused.expect_error(400, "Invalid request body", &bad.to_string());
    }
    let other = client.send(post(&path).json(&json!({"deliver_at": ahead(60), "delay": 1}))).await;
    other.expect_error(400, "Invalid API request", "another key");
    for body in [json!({}), json!([])] {
        let refused = client.send(post(&path).json(&body)).await;
        refused.expect_error(400, "Invalid request body", &body.to_string());
    }
    let far = json!({"deliver_at": "2999-01-31T08:00:00Z"});
    let refused = client.send(post(&path).json(&far)).await;
    refused.expect_error(400, "Invalid API request", "too far ahead");
    let body = json!({"deliver_at": ahead(60)});
    for queue in ["q", "none"] {
        let path = format!("/v2/queues/{queue}/messages/none/reschedule");
        client.post(path, &body).await.expect_error(404, "Not found", queue);
    }
}
