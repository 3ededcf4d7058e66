//! A server that receives SIGTERM.

use serde_json::{Value, json};
use tests::{Builder, Connection, TestApp, begin_post, eventually, get, head, post};

const BODY: &str = "{\"messages\":[{\"body\":\"in flight\",\"ttl\":600}]}";

/// The longest timeout that the configuration allows, longer than any test waits.
const TOO_LONG: &str = "10m";

/// Configures a server that ends no request and no connection because of a timeout.
fn without_timeouts() -> Builder {
    TestApp::builder()
        .set("HTTP__SHUTDOWN_TIMEOUT", TOO_LONG)
        .set("HTTP__HEADER_TIMEOUT", TOO_LONG)
        .set("HTTP__BODY_TIMEOUT", TOO_LONG)
        .set("HTTP__KEEP_ALIVE", TOO_LONG)
}

/// Waits until the server has begun to stop, which it reports as not being ready.
async fn wait_until_stopping(app: &TestApp) {
    let metrics = app.metrics();
    eventually("the server stops being ready", async || {
        let response = metrics.try_send(get("/readyz")).await;
        let ready = response.is_ok_and(|response| response.status == 200);
        (!ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let mut app = without_timeouts().start();
    let client = app.client();
    let mut connection = begin_post(&client, BODY).await;
    app.terminate();
    wait_until_stopping(&app).await;

    connection.send(BODY).await.expect("the server still reads");
    let posted = connection.response().await.expect("the server still responds");
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert_eq!(app.wait().code(), Some(0));

    app.restart();
    let client = client.reconnected();
    assert_eq!(client.bodies("q", "echo=true").await, ["in flight"]);
}

#[tokio::test]
async fn a_stopping_server_does_not_keep_new_clients_waiting() {
    let mut app = without_timeouts().start();
    let client = app.client();
    let mut unfinished = begin_post(&client, BODY).await;
    app.terminate();
    wait_until_stopping(&app).await;

    // The server cannot end before the unfinished request. It must refuse the connection, close it,
    // or respond: each of them tells a new client to go elsewhere.
    if let Ok(mut connection) = Connection::open(client.address()).await {
        let _ = connection.send(head(&client, "GET /v2/queues", "")).await;
        connection.response().await;
    }
    unfinished.send(BODY).await.expect("the server still reads");
    assert_eq!(unfinished.response().await.expect("the server still responds").status, 201);
    assert_eq!(app.wait().code(), Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let mut app = without_timeouts().start();
    let client = app.client();
    client.get("/v2/queues").await.expect(200, "a connection that is kept alive");
    let idle = Connection::open(client.address()).await.expect("the server listens");
    app.terminate();
    assert_eq!(app.wait().code(), Some(0));
    drop(idle);
}

#[tokio::test]
async fn an_unfinished_request_delays_the_end_no_longer_than_the_timeout() {
    let mut app = without_timeouts().set("HTTP__SHUTDOWN_TIMEOUT", "1s").start();
    let client = app.client();
    let connection = begin_post(&client, BODY).await;
    app.terminate();
    assert_eq!(app.wait().code(), Some(0));
    drop(connection);
}

#[tokio::test]
async fn acknowledged_messages_survive_a_shutdown() {
    let mut app = TestApp::start();
    let client = app.client();
    let posting = tokio::spawn({
        let client = client.clone();
        async move {
            let mut acknowledged: Vec<Value> = Vec::new();
            loop {
                let body = json!(acknowledged.len());
                let messages = json!({"messages": [{"body": body, "ttl": 600}]});
                let call = post("/v2/queues/q/messages").json(&messages);
                match client.try_send(call).await {
                    Ok(response) if response.status == 201 => acknowledged.push(body),
                    _ => return acknowledged,
                }
            }
        }
    });
    eventually("messages are posted", async || (client.counts("q").await[2] >= 20).then_some(()))
        .await;
    app.terminate();
    let acknowledged = posting.await.unwrap();
    assert_eq!(app.wait().code(), Some(0));
    app.restart();
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
