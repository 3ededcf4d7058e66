//! A redrive that the server is killed in neither loses nor duplicates a dead letter.

use serde_json::{Value, json};
use tests::{Client, TestApp, post};
use tokio::task::JoinSet;

use super::acknowledgements::Acknowledgements;

const DEAD_LETTERS: u64 = 400;
const KILLS: u32 = 6;
const REDRIVERS: usize = 3;

/// Posts numbered messages and moves them to the dead-letter queue.
async fn dead_letter_all(client: &Client) {
    client.create_queue("q", &json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"})).await;
    for first in (0..DEAD_LETTERS).step_by(20) {
        client.post_bodies("q", (first..first + 20).map(|n| json!(n))).await;
        let claim = client.claim("q", 20).await.unwrap();
        client.release("q", &claim.id).await;
        assert!(client.claim("q", 20).await.is_none());
    }
}

/// Moves a few dead letters at a time until the server is killed. Returns how many moves were
/// acknowledged.
async fn redrive_until_killed(client: Client, acknowledgements: Acknowledgements) -> u64 {
    let mut moved = 0;
    let call = || post("/v2/queues/dead/redrive").json(&json!({"limit": 4, "rate": 1_000}));
    while let Ok(response) = client.try_send(call()).await {
        moved += response.expect(200, "redrive").json()["redriven"].as_u64().unwrap();
        acknowledgements.count_one();
    }
    moved
}

#[tokio::test]
async fn an_interrupted_redrive_neither_loses_nor_duplicates_messages() {
    let mut app = TestApp::start();
    let mut client = app.client();
    dead_letter_all(&client).await;
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let acknowledgements = Acknowledgements::new();
        let mut redrivers = JoinSet::new();
        for _ in 0..REDRIVERS {
            redrivers.spawn(redrive_until_killed(client.clone(), acknowledgements.clone()));
        }
        acknowledgements.wait_for(3 + 3 * kill).await;
        app.kill();
        acknowledged += redrivers.join_all().await.iter().sum::<u64>();
        app.restart();
        client = client.reconnected();
        assert!(client.counts("q").await[2] >= acknowledged, "an acknowledged move was lost");
    }
    client.post("/v2/queues/dead/redrive", &json!({})).await.expect(200, "the rest");
    assert_eq!(client.counts("dead").await, [0, 0, 0]);
    let mut bodies: Vec<_> = client.list_all("q").await.iter().map(body).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..DEAD_LETTERS).collect::<Vec<_>>());
}

fn body(message: &Value) -> u64 {
    message["body"].as_u64().unwrap()
}
