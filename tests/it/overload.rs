//! Clients that are slow, greedy or broken do not harm others.

use std::fmt::Write as _;
use std::time::Instant;

use reqwest::header::RETRY_AFTER;
use serde_json::json;
use tests::{
    Client, Connection, DEADLINE, TestApp, begin_post, connect_and_send, eventually, get, head,
};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// The longest timeout that the configuration allows, longer than any test waits.
const TOO_LONG: &str = "10m";

/// Checks that other clients are served. A server that makes them wait for a slow client fails the
/// test at the client's timeout, unless the server gives the slow client up before.
async fn assert_served(client: &Client) {
    client.post_bodies("others", [json!(1)]).await;
    client.get("/v2/queues/others").await.expect(200, "others are served");
}

/// Sends the beginning of heads.
async fn send_partial_heads(client: &Client) -> Vec<Connection> {
    let mut connections = Vec::new();
    for start in
        ["G", "GET /v2/queues HTTP/1.1\r\n", "GET /v2/queues HTTP/1.1\r\nHost: x\r\nClient"]
    {
        connections.push(connect_and_send(client, start).await);
    }
    connections
}

/// Sends requests with the beginning of their bodies.
async fn send_partial_bodies(client: &Client) -> Vec<Connection> {
    let mut connections = Vec::new();
    for line in ["POST /v2/queues/q/messages", "PUT /v2/queues/q", "POST /v2/queues/q/claims"] {
        let start = head(client, line, "Content-Length: 100\r\n") + "{\"messages\":";
        connections.push(connect_and_send(client, &start).await);
    }
    connections
}

/// Sends requests whose responses are far larger than the buffers of the sockets.
async fn send_without_reading(client: &Client) -> Connection {
    for _ in 0..20 {
        client.post_bodies("large", [json!("x".repeat(250_000))]).await;
    }
    let line = "GET /v2/queues/large/messages?limit=20&echo=true";
    let requests = head(client, line, "").repeat(8);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(client.address()).await.expect("the server listens");
    let mut connection = Connection::over(stream);
    connection.send(requests).await.expect("the server reads");
    connection
}

/// Waits until the server has closed the connections, without a response or with an error.
async fn assert_cut_off(connections: &mut [Connection]) {
    for connection in connections {
        let sent = connection.until_closed().await;
        assert!(sent.is_empty() || sent.starts_with(b"HTTP/1.1 4"), "{sent:?}");
    }
}

#[tokio::test]
async fn others_are_served_while_slow_clients_are_connected() {
    let app = TestApp::builder()
        .set("HTTP__HEADER_TIMEOUT", TOO_LONG)
        .set("HTTP__BODY_TIMEOUT", TOO_LONG)
        .set("HTTP__WRITE_TIMEOUT", TOO_LONG)
        .start();
    let client = app.client();
    let heads = send_partial_heads(&client).await;
    assert_served(&client).await;
    let bodies = send_partial_bodies(&client).await;
    assert_served(&client).await;
    let unread = send_without_reading(&client).await;
    assert_served(&client).await;
    drop((heads, bodies, unread));
    assert_served(&client).await;
}

#[tokio::test]
async fn a_partial_head_is_cut_off() {
    let app = TestApp::builder()
        .set("HTTP__HEADER_TIMEOUT", "1s")
        .set("HTTP__KEEP_ALIVE", TOO_LONG)
        .start();
    let client = app.client();
    let mut slow = send_partial_heads(&client).await;
    assert_served(&client).await;
    assert_cut_off(&mut slow).await;
    assert_served(&client).await;
}

#[tokio::test]
async fn a_partial_head_on_a_used_connection_is_cut_off() {
    let app = TestApp::builder()
        .set("HTTP__HEADER_TIMEOUT", "1s")
        .set("HTTP__KEEP_ALIVE", "1s")
        .set("HTTP__WRITE_TIMEOUT", "1s")
        .start();
    let client = app.client();
    let request = head(&client, "GET /v2/queues", "");
    let mut connection = connect_and_send(&client, &request).await;
    connection.response().await.expect("the server responds").expect(200, "the first request");
    // The server may already have closed the idle connection.
    let _ = connection.send(&request[..40]).await;
    assert!(connection.until_closed().await.is_empty());
}

#[tokio::test]
async fn endless_chunks_are_cut_off() {
    let app = TestApp::builder().set("HTTP__KEEP_ALIVE", TOO_LONG).start();
    let client = app.client();
    let lines = ["GET /v2/queues", "POST /v2/queues/q/messages"];
    let cut_off: JoinSet<_> =
        lines.into_iter().map(|line| send_endless_chunks(client.clone(), line)).collect();
    cut_off.join_all().await;
}

/// Sends chunks until the server closes the connection.
async fn send_endless_chunks(client: Client, line: &str) {
    let start = head(&client, line, "Transfer-Encoding: chunked\r\n");
    let mut connection = connect_and_send(&client, &start).await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let begun = Instant::now();
    while connection.send(&chunk).await.is_ok() {
        assert!(begun.elapsed() < DEADLINE, "{line}: the server still reads");
    }
}

#[tokio::test]
async fn a_partial_body_is_cut_off() {
    let app =
        TestApp::builder().set("HTTP__BODY_TIMEOUT", "1s").set("HTTP__WRITE_TIMEOUT", "1s").start();
    let client = app.client();
    let mut slow = send_partial_bodies(&client).await;
    assert_served(&client).await;
    for connection in &mut slow {
        let sent = connection.until_closed().await;
        assert!(sent.starts_with(b"HTTP/1.1 408"), "{}", sent.escape_ascii());
    }
    assert_served(&client).await;
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let app = TestApp::builder()
        .set("HTTP__WRITE_TIMEOUT", "1s")
        .set("HTTP__KEEP_ALIVE", TOO_LONG)
        .start();
    let client = app.client();
    let mut slow = send_without_reading(&client).await;
    assert_served(&client).await;
    // Once the server has closed the connection, it rejects further bytes.
    eventually("the server closes the connection", async || slow.send("\r\n").await.err()).await;
    assert_served(&client).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_served_later() {
    let app = TestApp::builder().set("HTTP__MAX_IN_FLIGHT", "2").start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    // Posts wait while another process holds the write lock of the file.
    let writer = rusqlite::Connection::open(app.database()).expect("the file can be opened");
    writer.execute_batch("BEGIN IMMEDIATE").expect("the file can be written");
    let post = || {
        let client = client.clone();
        tokio::spawn(async move { client.post_bodies("q", [json!(1)]).await })
    };
    let posts = [post(), post()];
    let metrics = app.metrics();
    eventually("two posts are in flight", async || {
        metrics.get("/metrics").await.text().contains("requests_in_flight 2\n").then_some(())
    })
    .await;

    let busy = client.get("/v2/queues").await;
    busy.expect_error(503, "Service temporarily unavailable", "two are in flight");
    let retry = busy.headers.get(RETRY_AFTER).expect("a time to retry");
    let seconds: u32 = retry.to_str().unwrap().parse().expect("a number of seconds");
    assert!((1..=60).contains(&seconds));
    metrics.get("/livez").await.expect(200, "the metrics listener has no limit");
    writer.execute_batch("ROLLBACK").expect("the lock can be released");
    for post in posts {
        assert_eq!(post.await.unwrap().len(), 1);
    }
    client.get("/v2/queues").await.expect(200, "served again");
    assert_eq!(client.counts("q").await, [2, 0, 2]);
}

#[tokio::test]
async fn requests_without_their_body_do_not_count_as_in_flight() {
    let app = TestApp::builder()
        .set("HTTP__MAX_IN_FLIGHT", "2")
        .set("HTTP__BODY_TIMEOUT", TOO_LONG)
        .start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let body = json!({"messages": [{"body": 1}]}).to_string();
    let mut unfinished = Vec::new();
    for _ in 0..8 {
        unfinished.push(begin_post(&client, &body).await);
        assert_served(&client).await;
    }
    for connection in &mut unfinished {
        connection.send(&body).await.expect("the server reads");
        assert_eq!(connection.response().await.expect("the server responds").status, 201);
    }
    assert_eq!(client.counts("q").await, [8, 0, 8]);
}

#[tokio::test]
async fn partial_bodies_have_a_limit_in_total() {
    let app = TestApp::builder()
        .set("HTTP__MAX_RECEIVING", "1 MiB")
        .set("HTTP__BODY_TIMEOUT", TOO_LONG)
        .start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let start = head(&client, "POST /v2/queues/q/messages", "Content-Length: 260000\r\n");
    let mut statuses = Vec::new();
    let mut unfinished = Vec::new();
    for _ in 0..8 {
        let mut connection = connect_and_send(&client, &start).await;
        // The server may refuse the request before all bytes are sent.
        let _ = connection.send(" ".repeat(250_000)).await;
        unfinished.push(connection);
        assert_served(&client).await;
    }
    for connection in &mut unfinished {
        let _ = connection.send(" ".repeat(10_000)).await;
        statuses.push(connection.response().await.map_or(0, |response| response.status));
    }
    // The bodies are not JSON. The server had no room to receive all of them.
    assert!(statuses.contains(&400), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
    assert_served(&client).await;
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let app = TestApp::builder().set("HTTP__MAX_HEADER_BYTES", "8 KiB").start();
    let client = app.client();
    client.send(get("/v2/queues").header("x-long", &"x".repeat(6_000))).await.expect(200, "6 kB");
    let many = (0..20_000).fold(String::new(), |mut many, n| {
        let _ = write!(many, "X-{n}: {n}\r\n");
        many
    });
    let heads = [
        (
            "one long header",
            head(&client, "GET /v2/queues", &format!("X: {}\r\n", "x".repeat(100_000))),
        ),
        ("many headers", head(&client, "GET /v2/queues", &many)),
        ("a long path", head(&client, &format!("GET /{}", "x".repeat(100_000)), "")),
        ("no end", format!("GET /v2/queues HTTP/1.1\r\nX: {}", "x".repeat(1_000_000))),
    ];
    for (what, head) in heads {
        let mut connection = Connection::open(client.address()).await.expect("the server listens");
        // The server may close the connection before all bytes are sent.
        let _ = connection.send(head).await;
        if let Some(response) = connection.response().await {
            assert!((400..500).contains(&response.status), "{what}: {}", response.status);
        }
        assert_served(&client).await;
    }
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let claim = format!("PATCH /v2/queues/q/claims/{}", "0".repeat(32));
    let lines = [
        "POST /v2/queues/q/messages",
        "PUT /v2/queues/q",
        "PATCH /v2/queues/q",
        "POST /v2/queues/q/claims",
        "POST /v2/queues/q/purge",
        &claim,
    ];
    for line in lines {
        for length in ["10000000", "10000000000000", "18446744073709551615"] {
            let huge = head(&client, line, &format!("Content-Length: {length}\r\n"));
            let mut connection = connect_and_send(&client, &huge).await;
            let refused = connection.response().await.expect("a response without the body");
            let what = format!("{line} with {length} bytes");
            assert!(matches!(refused.status, 400 | 413), "{what}: {}", refused.status);
        }
    }
    assert_served(&client).await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let app = TestApp::builder()
        .set("HTTP__KEEP_ALIVE", "1s")
        .set("HTTP__HEADER_TIMEOUT", TOO_LONG)
        .set("HTTP__WRITE_TIMEOUT", TOO_LONG)
        .start();
    let client = app.client();
    let mut idle = connect_and_send(&client, &head(&client, "GET /v2/queues", "")).await;
    idle.response().await.expect("the server responds").expect(200, "served");
    assert!(idle.until_closed().await.is_empty());
}

#[tokio::test]
async fn many_connections_at_once_are_served() {
    let client = TestApp::shared().client();
    let mut connections = Vec::new();
    for _ in 0..200 {
        let request = head(&client, "GET /v2/queues", "");
        connections.push(connect_and_send(&client, &request).await);
    }
    for connection in &mut connections {
        connection.response().await.expect("the server responds").expect(200, "served");
    }
}
