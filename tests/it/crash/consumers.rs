//! Clients that delete and pop messages until the server is killed.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Client, delete, post};
use tokio::task::JoinSet;

use super::acknowledgements::Acknowledgements;

const MESSAGES: usize = 150;

/// Messages of a claim or a pop.
const BATCH: usize = 3;

pub(super) struct Prepared {
    queue: String,
}

/// Fills a queue with messages.
pub(super) async fn prepare(client: &Client, queue: &str) -> Prepared {
    client.post_bodies(queue, (0..MESSAGES).map(|n| json!(n))).await;
    Prepared { queue: queue.into() }
}

/// The deletions of one client.
#[derive(Default)]
struct Consumed {
    acknowledged: Vec<String>,
    /// How many messages the call without a response may have deleted.
    in_doubt: usize,
}

impl Prepared {
    pub(super) fn start(self, client: &Client, acknowledged: &Acknowledgements) -> Consumers {
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (client, queue) = (client.clone(), self.queue.clone());
            tasks.spawn(claim_until_killed(client, queue, acknowledged.clone()));
        }
        tasks.spawn(pop_until_killed(client.clone(), self.queue.clone(), acknowledged.clone()));
        Consumers { queue: self.queue, tasks }
    }
}

fn ids(response: &Value) -> Vec<String> {
    let messages = response["messages"].as_array().unwrap();
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

/// Claims messages and deletes them with the claim, until the server is killed or the queue is
/// empty.
async fn claim_until_killed(client: Client, queue: String, acks: Acknowledgements) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let claim = post(format!("/v2/queues/{queue}/claims?limit={BATCH}"));
        let Ok(response) = client.try_send(claim).await else { return consumed };
        if response.status == 204 {
            return consumed;
        }
        for message in response.expect(201, "claim").json()["messages"].as_array().unwrap() {
            let call = delete(message["href"].as_str().unwrap());
            let Ok(response) = client.try_send(call).await else {
                consumed.in_doubt = 1;
                return consumed;
            };
            response.expect(204, "delete");
            consumed.acknowledged.push(message["id"].as_str().unwrap().to_owned());
            acks.count_one();
        }
    }
}

/// Pops until the server is killed or the queue is empty.
async fn pop_until_killed(client: Client, queue: String, acks: Acknowledgements) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let pop = delete(format!("/v2/queues/{queue}/messages?pop={BATCH}"));
        let Ok(response) = client.try_send(pop).await else {
            consumed.in_doubt = BATCH;
            return consumed;
        };
        let popped = ids(&response.expect(200, "pop").json());
        if popped.is_empty() {
            return consumed;
        }
        consumed.acknowledged.extend(popped);
        acks.count_one();
    }
}

pub(super) struct Consumers {
    queue: String,
    tasks: JoinSet<Consumed>,
}

impl Consumers {
    pub(super) async fn finish(self) -> Outcome {
        Outcome { queue: self.queue, consumed: self.tasks.join_all().await }
    }
}

pub(super) struct Outcome {
    queue: String,
    consumed: Vec<Consumed>,
}

impl Outcome {
    /// Checks that acknowledged deletions are kept and that no other message is missing.
    pub(super) async fn verify(&self, client: &Client) {
        let queue = &self.queue;
        let remaining = client.list_all(queue).await;
        let remaining: HashSet<_> =
            remaining.iter().map(|message| message["id"].as_str().unwrap()).collect();
        let deleted: Vec<_> =
            self.consumed.iter().flat_map(|consumed| &consumed.acknowledged).collect();
        let unique: HashSet<_> = deleted.iter().collect();
        assert_eq!(unique.len(), deleted.len(), "{queue}: two consumers got the same message");
        for id in &deleted {
            assert!(!remaining.contains(id.as_str()), "{queue}: {id} exists again");
        }
        for ids in deleted.chunks(20) {
            let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
            let path = format!("/v2/queues/{queue}/messages?ids={}", ids.join(","));
            client.get(path).await.expect_error(404, "Not found", "deleted messages");
        }
        let in_doubt: usize = self.consumed.iter().map(|consumed| consumed.in_doubt).sum();
        let most = MESSAGES - deleted.len();
        let range = most.saturating_sub(in_doubt)..=most;
        assert!(
            range.contains(&remaining.len()),
            "{queue}: {} are remaining, not {range:?}",
            remaining.len()
        );
    }
}
