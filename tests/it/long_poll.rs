//! `wait`: a claim or a listing that comes when there is something.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, DEADLINE, TestApp, connect_and_send, get, head, post};
use tokio::{task::JoinHandle, time::interval};

/// Begins a claim that waits, and returns once the server has it.
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
    assert!(posted.elapsed() < Duration::from_secs(10), "it waited in vain");
}

#[tokio::test]
async fn a_claim_waits_for_a_queue_that_is_made_later() {
    let app = TestApp::start();
    let client = app.client();
    let claim = waiting_claim(&app, &client, 30).await;
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(claim.await.unwrap(), (201, 1));
}

#[tokio::test]
async fn a_claim_waits_for_a_queue_that_is_deleted_and_made_again() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let claim = waiting_claim(&app, &client, 30).await;
    client.delete("/v2/queues/q").await.expect(204, "delete");
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(claim.await.unwrap(), (201, 1));
}

#[tokio::test]
async fn a_claim_that_waits_in_vain_says_that_there_is_nothing() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for queue in ["q", "missing"] {
        let start = Instant::now();
        client.send(post(format!("/v2/queues/{queue}/claims?wait=1"))).await.expect(204, queue);
        assert!(start.elapsed() >= Duration::from_secs(1), "{queue}: it did not wait");
    }
    // Without patience it does not.
    client.send(post("/v2/queues/q/claims?wait=0")).await.expect(204, "no wait");
}

#[tokio::test]
async fn what_is_there_is_claimed_at_once() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!(1), json!(2)]).await;
    let claim = client.send(post("/v2/queues/q/claims?wait=30&limit=1")).await;
    assert_eq!(claim.expect(201, "claim").json()["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn each_message_goes_to_one_of_those_who_wait() {
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
async fn a_listing_waits_for_what_it_does_not_have() {
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
    // Its own messages are none to somebody who does not want an echo.
    let start = Instant::now();
    let listed = client.get("/v2/queues/q/messages?wait=1").await.expect(200, "own").json();
    assert_eq!(listed["messages"], json!([]));
    assert!(start.elapsed() >= Duration::from_secs(1), "it did not wait");
}

#[tokio::test]
async fn who_waits_keeps_nobody_from_being_served() {
    let app = TestApp::builder().set("HTTP__MAX_IN_FLIGHT", "2").start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let mut claims = Vec::new();
    for _ in 0..6 {
        claims.push(waiting_claim(&app, &client, 30).await);
    }
    client.get("/v2/queues/q/stats").await.expect(200, "others are served");
    claims.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn who_hangs_up_gives_up_its_slot() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    let connections =
        [connect_and_send(&client, &request).await, connect_and_send(&client, &request).await];
    await_in_flight(&app, 2).await;
    drop(connections);
    await_in_flight(&app, 0).await;
    // Nor does it take a message with it.
    client.post_bodies("q", [json!(1)]).await;
    assert!(client.claim("q", 1).await.is_some());
}

#[tokio::test]
async fn a_complete_request_is_answered_though_its_client_stopped_sending() {
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
        let answer = connection.answer().await.expect(line);
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert_eq!(connection.until_closed().await, b"", "{line}");
    }
}

#[tokio::test]
async fn a_claim_that_waits_ends_when_its_client_stops_sending() {
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
        assert_eq!(connection.answer().await.expect("an answer").status, 204, "{queue}");
        assert!(start.elapsed() < Duration::from_secs(10), "{queue}: it waited in vain");
    }
}

#[tokio::test]
async fn a_request_behind_one_that_waits_does_not_end_the_wait() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    let mut connection = connect_and_send(&client, &request).await;
    await_in_flight(&app, 1).await;
    connection.send(head(&client, "GET /v2/queues/q", "")).await.unwrap();
    client.post_bodies("q", [json!(1)]).await;
    assert_eq!(connection.answer().await.expect("the claim").status, 201);
    assert_eq!(connection.answer().await.expect("the queue").status, 200);
}

#[tokio::test]
async fn a_message_goes_to_those_who_still_wait() {
    let app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let request = head(&client, "POST /v2/queues/q/claims?wait=30", "Content-Length: 0\r\n");
    for _ in 0..20 {
        let connection = connect_and_send(&client, &request).await;
        await_in_flight(&app, 1).await;
        let claim = waiting_claim(&app, &client, 30).await;
        // The message may arrive before the node has noticed that the first client is gone.
        drop(connection);
        client.post_bodies("q", [json!(1)]).await;
        assert_eq!(claim.await.unwrap(), (201, 1));
        await_in_flight(&app, 0).await;
    }
}

#[tokio::test]
async fn a_node_that_stops_lets_nobody_wait() {
    let mut app = TestApp::start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let claim = waiting_claim(&app, &client, 30).await;
    let start = Instant::now();
    app.terminate();
    assert!(app.wait().success());
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for those who wait");
    assert_eq!(claim.await.unwrap(), (204, 0));
}

#[tokio::test]
async fn a_wait_has_bounds() {
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
