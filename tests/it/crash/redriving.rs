//! Dead letters that are under way back when the server is killed: none is lost, none is there twice.

use serde_json::{Value, json};
use tests::{Client, TestApp, post};
use tokio::task::JoinSet;

use super::Acknowledgements;

const LETTERS: u64 = 400;
const KILLS: u32 = 6;
const REDRIVERS: usize = 3;

/// Lets numbered messages become dead letters.
async fn bury(client: &Client) {
    client.create_queue("q", &json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"})).await;
    for first in (0..LETTERS).step_by(20) {
        client.post_bodies("q", (first..first + 20).map(|n| json!(n))).await;
        let claim = client.claim("q", 20).await.unwrap();
        client.release("q", &claim.id).await;
        assert!(client.claim("q", 20).await.is_none());
    }
}

/// Moves a few at a time until the server is gone; answers how many that were, as far as it heard.
async fn redrive_until_gone(client: Client, acknowledgements: Acknowledgements) -> u64 {
    let mut moved = 0;
    let call = || post("/v2/queues/dead/redrive").json(&json!({"limit": 4, "rate": 1_000}));
    while let Ok(answer) = client.try_send(call()).await {
        moved += answer.expect(200, "redrive").json()["redriven"].as_u64().unwrap();
        acknowledgements.count_one();
    }
    moved
}

#[tokio::test]
async fn a_redrive_that_is_killed_loses_nothing_and_doubles_nothing() {
    let mut app = TestApp::start();
    let mut client = app.client();
    bury(&client).await;
    let mut heard = 0;
    for kill in 0..KILLS {
        let acknowledgements = Acknowledgements::new();
        let mut redrivers = JoinSet::new();
        for _ in 0..REDRIVERS {
            redrivers.spawn(redrive_until_gone(client.clone(), acknowledgements.clone()));
        }
        acknowledgements.wait_for(3 + 3 * kill).await;
        app.kill();
        heard += redrivers.join_all().await.iter().sum::<u64>();
        app.start_again();
        client = client.reconnected();
        assert!(client.counts("q").await[2] >= heard, "what was said to have moved has moved");
    }
    client.post("/v2/queues/dead/redrive", &json!({})).await.expect(200, "the rest");
    assert_eq!(client.counts("dead").await, [0, 0, 0]);
    let mut bodies: Vec<_> = client.list_all("q").await.iter().map(body).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..LETTERS).collect::<Vec<_>>());
}

fn body(message: &Value) -> u64 {
    message["body"].as_u64().unwrap()
}
