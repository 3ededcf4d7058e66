//! Clients that are slow, greedy or broken do no harm to the others.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use serde_json::json;
use tests::{Client, Connection, DEADLINE, TestApp, begin_post, connect_and_send, get, head};
use tokio::net::TcpSocket;
use tokio::time::interval;

/// The others are served, soon, while something bad goes on.
async fn assert_served(client: &Client) {
    let start = Instant::now();
    client.post_bodies("others", [json!(1)]).await;
    client.get("/v2/queues/others").await.expect(200, "others are served");
    assert!(start.elapsed() < Duration::from_secs(5), "others waited for {:?}", start.elapsed());
}

#[tokio::test]
async fn half_a_head_is_cut_off_and_others_are_served() {
    let app = TestApp::builder().set("HTTP__HEADER_TIMEOUT", "1s").start();
    let client = app.client();
    let mut slow = Vec::new();
    for start in
        ["G", "GET /v2/queues HTTP/1.1\r\n", "GET /v2/queues HTTP/1.1\r\nHost: x\r\nClient"]
    {
        slow.push(connect_and_send(&client, start).await);
    }
    assert_served(&client).await;
    for connection in &mut slow {
        let said = connection.until_closed().await;
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{said:?}");
    }
    assert_served(&client).await;
}

#[tokio::test]
async fn half_a_head_on_a_used_connection_is_cut_off() {
    let app = TestApp::builder()
        .set("HTTP__HEADER_TIMEOUT", "1s")
        .set("HTTP__KEEP_ALIVE", "1s")
        .set("HTTP__WRITE_TIMEOUT", "1s")
        .start();
    let client = app.client();
    let request = head(&client, "GET /v2/queues", "");
    let mut connection = connect_and_send(&client, &request).await;
    connection.answer().await.expect("the server answers").expect(200, "the first request");
    connection.send(&request[..40]).await.expect("the server reads");
    assert!(connection.until_closed().await.is_empty());
}

#[tokio::test]
async fn chunks_without_end_are_cut_off() {
    let client = TestApp::shared().client();
    for line in ["GET /v2/queues", "POST /v2/queues/q/messages"] {
        let start = head(&client, line, "Transfer-Encoding: chunked\r\n");
        let mut connection = connect_and_send(&client, &start).await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        let begun = Instant::now();
        while connection.send(&chunk).await.is_ok() {
            assert!(begun.elapsed() < DEADLINE, "{line}: the server still reads");
        }
    }
}

#[tokio::test]
async fn half_a_body_is_cut_off_and_others_are_served() {
    let app =
        TestApp::builder().set("HTTP__BODY_TIMEOUT", "1s").set("HTTP__WRITE_TIMEOUT", "1s").start();
    let client = app.client();
    let mut slow = Vec::new();
    for line in ["POST /v2/queues/q/messages", "PUT /v2/queues/q", "POST /v2/queues/q/claims"] {
        let start = head(&client, line, "Content-Length: 100\r\n") + "{\"messages\":";
        slow.push(connect_and_send(&client, &start).await);
    }
    assert_served(&client).await;
    for connection in &mut slow {
        let said = connection.until_closed().await;
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{said:?}");
    }
    assert_served(&client).await;
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off_and_others_are_served() {
    let app = TestApp::builder().set("HTTP__WRITE_TIMEOUT", "1s").start();
    let client = app.client();
    for _ in 0..20 {
        client.post_bodies("large", [json!("x".repeat(250_000))]).await;
    }
    let line = "GET /v2/queues/large/messages?limit=20&echo=true";
    let requests = head(&client, line, "").repeat(8);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(client.address()).await.expect("the server listens");
    let mut slow = Connection::over(stream);
    slow.send(requests).await.expect("the server reads");
    assert_served(&client).await;

    // The answers are far larger than what the sockets hold. Once the server has given up, it
    // refuses what still comes.
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(50)));
    while slow.send("\r\n").await.is_ok() {
        assert!(start.elapsed() < DEADLINE, "the server still waits for its reader");
        ticks.tick().await;
    }
    assert_served(&client).await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_and_served_later() {
    let app = TestApp::builder().set("HTTP__MAX_IN_FLIGHT", "2").start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    // While somebody else writes to the file, posts are under way.
    let writer = rusqlite::Connection::open(app.database()).expect("the file can be opened");
    writer.execute_batch("BEGIN IMMEDIATE").expect("the file can be written");
    let post = || {
        let client = client.clone();
        tokio::spawn(async move { client.post_bodies("q", [json!(1)]).await })
    };
    let posts = [post(), post()];
    let (metrics, mut ticks) = (app.metrics(), interval(Duration::from_millis(10)));
    let start = Instant::now();
    while !metrics.get("/metrics").await.text().contains("requests_in_flight 2\n") {
        assert!(start.elapsed() < DEADLINE, "the posts are not under way");
        ticks.tick().await;
    }

    let busy = client.get("/v2/queues").await;
    busy.expect_error(503, "Service temporarily unavailable", "two are in flight");
    let retry = busy.headers.get(RETRY_AFTER).expect("it says when to come back");
    let seconds: u32 = retry.to_str().unwrap().parse().expect("a number of seconds");
    assert!((1..=60).contains(&seconds));
    metrics.get("/livez").await.expect(200, "the operator's listener is not refused");
    writer.execute_batch("ROLLBACK").expect("the file is let go");
    for post in posts {
        assert_eq!(post.await.unwrap().len(), 1);
    }
    client.get("/v2/queues").await.expect(200, "served again");
    assert_eq!(client.counts("q").await, [2, 0, 2]);
}

#[tokio::test]
async fn requests_that_are_still_sent_keep_nobody_from_being_served() {
    let app = TestApp::builder().set("HTTP__MAX_IN_FLIGHT", "2").start();
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
        assert_eq!(connection.answer().await.expect("the server answers").status, 201);
    }
    assert_eq!(client.counts("q").await, [8, 0, 8]);
}

#[tokio::test]
async fn bodies_in_pieces_have_a_bound_together() {
    let app = TestApp::builder().set("HTTP__MAX_RECEIVING", "1 MiB").start();
    let client = app.client();
    client.create_queue("q", &json!({})).await;
    let start = head(&client, "POST /v2/queues/q/messages", "Content-Length: 260000\r\n");
    let mut statuses = Vec::new();
    let mut unfinished = Vec::new();
    for _ in 0..8 {
        let mut connection = connect_and_send(&client, &start).await;
        // The server may refuse before it was all sent.
        let _ = connection.send(" ".repeat(250_000)).await;
        unfinished.push(connection);
        assert_served(&client).await;
    }
    for connection in &mut unfinished {
        let _ = connection.send(" ".repeat(10_000)).await;
        statuses.push(connection.answer().await.map_or(0, |answer| answer.status));
    }
    // What was received is no JSON, but there was no room to receive it all.
    assert!(statuses.contains(&400), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
    assert_served(&client).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
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
        // The server may hang up before it was all sent.
        let _ = connection.send(head).await;
        if let Some(answer) = connection.answer().await {
            assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
        }
        assert_served(&client).await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
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
            let refused = connection.answer().await.expect("an answer, though no body came");
            let what = format!("{line} with {length} bytes");
            assert!(matches!(refused.status, 400 | 413), "{what}: {}", refused.status);
        }
    }
    assert_served(&client).await;
}

#[tokio::test]
async fn idle_connections_are_closed_in_the_end() {
    let app = TestApp::builder().set("HTTP__KEEP_ALIVE", "1s").start();
    let client = app.client();
    let mut idle = connect_and_send(&client, &head(&client, "GET /v2/queues", "")).await;
    idle.answer().await.expect("the server answers").expect(200, "served");
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
        connection.answer().await.expect("the server answers").expect(200, "served");
    }
}
