//! A store whose disk is full.

use serde_json::json;
use tests::{Call, Client, TestApp, delete, get, patch, post, put};

const BUSY: &str = "Service temporarily unavailable";

/// Starts a server whose files are limited to a few megabytes. Writes beyond the limit fail as on a
/// full disk.
fn app_on_a_small_disk() -> TestApp {
    TestApp::builder().limits("trap '' XFSZ; ulimit -S -f 8192").start()
}

/// Posts until the disk is full. Returns how many messages were acknowledged.
async fn fill(client: &Client) -> usize {
    let body = json!({"messages": [{"body": "x".repeat(100_000), "ttl": 600}]});
    for acknowledged in 0..1000 {
        let response = client.post("/v2/queues/q/messages", &body).await;
        if response.status != 201 {
            response.expect_error(503, BUSY, "a post on a full disk");
            let description = response.json()["description"].as_str().unwrap().to_lowercase();
            assert!(description.contains("try again"), "{description}");
            return acknowledged;
        }
    }
    panic!("the disk did not become full");
}

fn other_calls() -> [(&'static str, Call); 7] {
    let change = json!([{"op": "add", "path": "/metadata/a", "value": "x".repeat(20_000)}]);
    [
        ("create a queue", put("/v2/queues/new").json(&json!({"a": "x".repeat(60_000)}))),
        ("change a queue", patch("/v2/queues/q").json(&change)),
        ("claim", post("/v2/queues/q/claims")),
        ("pop", delete("/v2/queues/missing/messages?pop=1")),
        ("delete a message", delete("/v2/queues/missing/messages/none")),
        ("purge", post("/v2/queues/missing/purge")),
        ("delete a queue", delete("/v2/queues/new")),
    ]
}

#[tokio::test]
async fn writes_to_a_full_disk_are_refused_and_no_message_is_lost() {
    let mut app = app_on_a_small_disk();
    let client = app.client();
    let acknowledged = fill(&client).await;
    assert!(acknowledged > 0);
    for (what, call) in other_calls() {
        // Small writes may still fit.
        let response = client.send(call).await;
        if response.status >= 300 {
            response.expect_error(503, BUSY, what);
            assert_eq!(response.header("location"), None, "{what}");
        }
    }
    assert_eq!(client.list_all("q").await.len(), acknowledged, "stored messages can be read");

    app.lift_limits();
    app.kill();
    app.restart();
    let client = client.reconnected();
    assert_eq!(client.list_all("q").await.len(), acknowledged, "after a restart");
    client.post_bodies("q", [json!(1)]).await;
    client.send(get("/v2/ping")).await.expect(204, "ping");
}

#[tokio::test]
async fn writes_succeed_once_the_disk_has_room() {
    let mut app = app_on_a_small_disk();
    let client = app.client();
    let acknowledged = fill(&client).await;
    app.lift_limits();
    client.post_bodies("q", [json!("x".repeat(100_000))]).await;
    assert_eq!(client.pop("q", 1).await.len(), 1);
    assert_eq!(client.list_all("q").await.len(), acknowledged);
}
