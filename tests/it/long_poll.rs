//! `wait`: claims and listings that wait for messages.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, DEADLINE, TestApp, connect_and_send, get, head, post};
use tokio::{task::JoinHandle, time::interval};

/// How long the requests of these tests may wait: one that takes longer was not woken.
const WAIT: Duration = Duration::from_secs(30);

/// Starts a claim that waits. Returns when the server has received it.
async fn waiting_claim(app: &TestApp, client: &Client, wait: u32) -> JoinHandle<(u16, usize)> {
    let waiting = in_flight(app).await;
    let client = client.clone();
    let claim = tokio::spawn(async move {
        let path = format!("/v2/queues/q/claims?limit=1&wait={wait}");
        let answer = client.send(post(path)).await;
        let messages = match answer.status {
            201 => answer.json()["messages"].as_array().unwrap().len(),
            _ => 0,
        };
        (answer.status, messages)
    });
    await_in_flight(app, waiting + 1).await;
    claim
}

async fn in_flight(app: &TestApp) -> usize {
    let metrics = app.metrics().get("/metrics").await;
    let text = metrics.text();
    let line = text
        .lines()
        .find(|line| !line.starts_with('#') && line.contains("requests_in_flight "))
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn await_in_flight(app: &TestApp, count: usize) {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(5)));
    while in_flight(app).await != count {
        assert!(start.elapsed() < DEADLINE, "never {count} in flight");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn a_claim_waits_for_a_message() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let claim = waiting_claim(&app, &client, 30).await;
    client.post_bodies("q", [json!(1)]).await;
    let posted = Instant::now();
    assert_eq!(claim.await.unwrap(), (201, 1));
    assert!(posted.elapsed() < WAIT, "the claim was not woken");
}

#[tokio::test]
async fn a_claim_waits_for_a_queue_that_is_created_later() {
    let app = TestApp::start();
    let client = app.client();
    let claim = waiting_claim(&app, &client, 30).await;
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(claim.await.unwrap(), (201, 1));
}

#[tokio::test]
async fn a_claim_waits_for_a_queue_that_is_deleted_and_created_again() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let claim = waiting_claim(&app, &client, 30).await;
    client.delete("/v2/queues/q").await.expect(204, "delete");
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(claim.await.unwrap(), (201, 1));
}

#[tokio::test]
async fn a_claim_returns_204_when_its_wait_ends() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for queue in ["q", "missing"] {
        let start = Instant::now();
        client.send(post(format!("/v2/queues/{queue}/claims?wait=1"))).await.expect(204, queue);
        assert!(start.elapsed() >= Duration::from_secs(1), "{queue}: it did not wait");
    }
    // `wait=0` does not wait.
    client.send(post("/v2/queues/q/claims?wait=0")).await.expect(204, "no wait");
}

#[tokio::test]
async fn available_messages_are_claimed_without_waiting() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(1), json!(2)]).await;
    let claim = client.send(post("/v2/queues/q/claims?wait=30&limit=1")).await;
    assert_eq!(claim.expect(201, "claim").json()["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn each_message_goes_to_one_waiting_consumer() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let mut claims = Vec::new();
    for _ in 0..4 {
        claims.push(waiting_claim(&app, &client, 30).await);
    }
    for n in 0..4 {
        client.post_bodies("q", [json!(n)]).await;
    }
    let mut claimed = 0;
    for claim in claims {
        claimed += claim.await.unwrap().1;
    }
    assert_eq!(claimed, 4);
}

#[tokio::test]
async fn a_listing_waits_for_messages_after_its_marker() {
    let client = TestApp::shared().client();
    let ids = client.post_messages("q", [json!({"body": "old"})]).await;
    let listing = {
        let (client, marker) = (client.clone(), ids[0].clone());
        tokio::spawn(async move {
            let path = format!("/v2/queues/q/messages?echo=true&marker={marker}&wait=30");
            client.get(path).await.expect(200, "list").json()
        })
    };
    client.post_bodies("q", [json!("new")]).await;
    assert_eq!(listing.await.unwrap()["messages"][0]["body"], "new");
    // Without `echo` a client does not see its own messages.
    let start = Instant::now();
    let listed = client.get("/v2/queues/q/messages?wait=1").await.expect(200, "own").json();
    assert_eq!(listed["messages"], json!([]));
    assert!(start.elapsed() >= Duration::from_secs(1), "it did not wait");
}

/// Waits until the node, which works on one request at a time, has suspended all others.
async fn await_suspended(client: &Client) {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(5)));
    while client.get("/v2/queues/q/stats").await.status != 200 {
        assert!(start.elapsed() < DEADLINE, "a waiting claim keeps its permit");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn a_waiting_claim_does_not_count_as_being_worked_on() {
    let app = TestApp::builder().set("HTTP__MAX_IN_FLIGHT", "1").start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let mut claims = Vec::new();
    for _ in 0..6 {
        claims.push(waiting_claim(&app, &client, 30).await);
        // The claim is in flight before it waits; until then it has the only permit.
        await_suspended(&client).await;
    }
    assert!(claims.iter().all(|claim| !claim.is_finished()), "a claim did not wait");
    client.get("/v2/queues/q/stats").await.expect(200, "others are served");
    claims.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_waiting_claim_ends_when_its_client_disconnects() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    let connections =
        [connect_and_send(&client, &request).await, connect_and_send(&client, &request).await];
    await_in_flight(&app, 2).await;
    let start = Instant::now();
    drop(connections);
    await_in_flight(&app, 0).await;
    assert!(start.elapsed() < WAIT, "the waits ended by themselves");
    // The ended claim holds no message.
    client.post_bodies("q", [json!(1)]).await;
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_complete_request_is_answered_after_its_client_half_closed() {
    let app = TestApp::start();
    let client = app.client();
    client.post_bodies("q", (0..4).map(|n| json!(n))).await;
    let body = json!({"messages": [{"body": "x".repeat(200_000)}]}).to_string();
    for (line, body, status) in [
        ("GET /v2/queues/q/messages?echo=true", "", 200),
        ("POST /v2/queues/q/messages", body.as_str(), 201),
        ("POST /v2/queues/new/messages", body.as_str(), 201),
        ("DELETE /v2/queues/q/messages?pop=1", "", 200),
        ("POST /v2/queues/q/claims?limit=1", "", 201),
        ("POST /v2/queues/q/claims?limit=1&wait=30", "{}", 201),
        ("GET /v2/queues/q/messages?echo=true&wait=30", "", 200),
    ] {
        let length = format!("Content-Length: {}\r\n", body.len());
        let request = head(&client, line, &length) + body;
        let mut connection = connect_and_send(&client, request).await;
        connection.finish().await.unwrap();
        let answer = connection.response().await.expect(line);
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert_eq!(connection.until_closed().await, b"", "{line}");
    }
}

#[tokio::test]
async fn a_waiting_claim_ends_when_its_client_half_closes() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    for queue in ["q", "missing"] {
        let line = format!("POST /v2/queues/{queue}/claims?wait=30");
        let request = head(&client, &line, "Content-Length: 0\r\n");
        let mut connection = connect_and_send(&client, &request).await;
        await_in_flight(&app, 1).await;
        let start = Instant::now();
        connection.finish().await.unwrap();
        assert_eq!(connection.response().await.expect("an answer").status, 204, "{queue}");
        assert!(start.elapsed() < WAIT, "{queue}: the wait did not end");
    }
}

#[tokio::test]
async fn a_pipelined_request_does_not_end_a_wait() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    let mut connection = connect_and_send(&client, &request).await;
    await_in_flight(&app, 1).await;
    connection.send(head(&client, "GET /v2/queues/q", "")).await.unwrap();
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(connection.response().await.expect("the claim").status, 201);
    assert_eq!(connection.response().await.expect("the queue").status, 200);
}

#[tokio::test]
async fn a_message_goes_to_a_consumer_that_is_still_connected() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    for _ in 0..20 {
        let connection = connect_and_send(&client, &request).await;
        await_in_flight(&app, 1).await;
        let claim = waiting_claim(&app, &client, 30).await;
        // The message may arrive before the node has observed the first client's close.
        drop(connection);
        client.post_bodies("q", [json!(1)]).await;
        assert_eq!(claim.await.unwrap(), (201, 1));
        await_in_flight(&app, 0).await;
    }
}

#[tokio::test]
async fn a_stopping_node_ends_all_waits() {
    let mut app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let claim = waiting_claim(&app, &client, 30).await;
    let start = Instant::now();
    app.terminate();
    assert!(app.wait().success());
    assert!(start.elapsed() < WAIT, "the node waited for waiting claims");
    assert_eq!(claim.await.unwrap(), (204, 0));
}

#[tokio::test]
async fn wait_is_bounded() {
    let client = TestApp::shared().client();
    for path in ["/v2/queues/q/messages?wait=", "/v2/queues/q/claims?wait="] {
        let call = |wait: &str| {
            let path = format!("{path}{wait}");
            if path.contains("claims") { post(path) } else { get(path) }
        };
        for wait in ["31", "-1", "soon", "1.5"] {
            let answer = client.send(call(wait)).await;
            assert_eq!(answer.status, 400, "{path}{wait}: {}", answer.text());
            assert!(answer.text().contains("wait"), "{path}{wait}: {}", answer.text());
        }
    }
}
