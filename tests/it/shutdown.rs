//! A server that is asked to stop.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Connection, DEADLINE, TestApp, begin_post, get, head};
use tokio::time::{interval, timeout};

const BODY: &str = "{\"messages\":[{\"body\":\"in flight\",\"ttl\":600}]}";

/// Returns when the server has begun to stop: it is not ready any more.
async fn until_stopping(app: &TestApp) {
    let metrics = app.metrics();
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
    while metrics.try_send(get("/readyz")).await.is_ok_and(|answer| answer.status == 200) {
        assert!(start.elapsed() < DEADLINE, "the server is still ready");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let mut app = TestApp::start();
    let client = app.client();
    let mut connection = begin_post(&client, BODY).await;
    app.terminate();
    until_stopping(&app).await;

    connection.send(BODY).await.expect("the server still reads");
    let posted = connection.answer().await.expect("the server still answers");
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert_eq!(app.wait().code(), Some(0));

    app.start_again();
    let client = client.reconnected();
    assert_eq!(client.bodies("q", "echo=true").await, ["in flight"]);
}

#[tokio::test]
async fn a_stopping_server_leaves_no_newcomer_waiting() {
    let mut app = TestApp::start();
    let client = app.client();
    let mut unfinished = begin_post(&client, BODY).await;
    app.terminate();
    until_stopping(&app).await;

    let newcomer = async {
        // Refused, hung up on or answered: each of them sends the newcomer elsewhere.
        let Ok(mut connection) = Connection::open(client.address()).await else { return };
        let _ = connection.send(head(&client, "GET /v2/queues", "")).await;
        connection.answer().await;
    };
    timeout(Duration::from_secs(5), newcomer).await.expect("a newcomer is not left waiting");
    unfinished.send(BODY).await.expect("the server still reads");
    assert_eq!(unfinished.answer().await.expect("the server still answers").status, 201);
    assert_eq!(app.wait().code(), Some(0));
}

#[tokio::test]
async fn an_idle_server_ends_at_once() {
    let mut app = TestApp::start();
    let client = app.client();
    client.get("/v2/queues").await.expect(200, "a connection that is kept alive");
    let idle = Connection::open(client.address()).await.expect("the server listens");
    let start = Instant::now();
    app.terminate();
    assert_eq!(app.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    drop(idle);
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_server_for_ever() {
    let mut app = TestApp::builder()
        .set("HTTP__SHUTDOWN_TIMEOUT", "1s")
        .set("HTTP__BODY_TIMEOUT", "60s")
        .start();
    let client = app.client();
    let connection = begin_post(&client, BODY).await;
    app.terminate();
    assert_eq!(app.wait().code(), Some(0));
    drop(connection);
}

#[tokio::test]
async fn what_was_acknowledged_before_the_end_is_there_after_it() {
    let mut app = TestApp::start();
    let client = app.client();
    let posting = tokio::spawn({
        let client = client.clone();
        async move {
            let mut acknowledged: Vec<Value> = Vec::new();
            loop {
                let body = json!(acknowledged.len());
                let messages = json!({"messages": [{"body": body, "ttl": 600}]});
                let call = tests::post("/v2/queues/q/messages").json(&messages);
                match client.try_send(call).await {
                    Ok(answer) if answer.status == 201 => acknowledged.push(body),
                    _ => return acknowledged,
                }
            }
        }
    });
    let mut ticks = interval(Duration::from_millis(10));
    while client.counts("q").await[2] < 20 {
        ticks.tick().await;
    }
    app.terminate();
    let acknowledged = posting.await.unwrap();
    assert_eq!(app.wait().code(), Some(0));
    app.start_again();
    let stored: Vec<_> = client
        .reconnected()
        .list_all("q")
        .await
        .iter()
        .map(|message| message["body"].clone())
        .collect();
    assert!(stored.starts_with(&acknowledged), "{} of {}", stored.len(), acknowledged.len());
    assert!(stored.len() <= acknowledged.len() + 1, "at most one was stored and not acknowledged");
}
