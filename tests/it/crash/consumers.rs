//! Clients that delete and pop until the server is gone.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Client, delete, post};
use tokio::task::JoinSet;

use super::Acknowledgements;

const MESSAGES: usize = 150;

/// How many messages a claim or a pop takes.
const BATCH: usize = 3;

pub(super) struct Prepared {
    queue: String,
}

/// Fills a queue.
pub(super) async fn prepare(client: &Client, queue: &str) -> Prepared {
    client.post_bodies(queue, (0..MESSAGES).map(|n| json!(n))).await;
    Prepared { queue: queue.into() }
}

/// What one client knows of its deletions.
#[derive(Default)]
struct Consumed {
    acknowledged: Vec<String>,
    /// How many messages the call that nobody answered may have deleted.
    in_doubt: usize,
}

impl Prepared {
    pub(super) fn start(self, client: &Client, acknowledged: &Acknowledgements) -> Consumers {
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (client, queue) = (client.clone(), self.queue.clone());
            tasks.spawn(claim_until_gone(client, queue, acknowledged.clone()));
        }
        tasks.spawn(pop_until_gone(client.clone(), self.queue.clone(), acknowledged.clone()));
        Consumers { queue: self.queue, tasks }
    }
}

fn ids(answer: &Value) -> Vec<String> {
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

/// Claims and deletes by the claim, until the server or the messages are gone.
async fn claim_until_gone(client: Client, queue: String, acks: Acknowledgements) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let claim = post(format!("/v2/queues/{queue}/claims?limit={BATCH}"));
        let Ok(answer) = client.try_send(claim).await else { return consumed };
        if answer.status == 204 {
            return consumed;
        }
        for message in answer.expect(201, "claim").json()["messages"].as_array().unwrap() {
            let call = delete(message["href"].as_str().unwrap());
            let Ok(answer) = client.try_send(call).await else {
                consumed.in_doubt = 1;
                return consumed;
            };
            answer.expect(204, "delete");
            consumed.acknowledged.push(message["id"].as_str().unwrap().to_owned());
            acks.count_one();
        }
    }
}

/// Pops until the server or the messages are gone.
async fn pop_until_gone(client: Client, queue: String, acks: Acknowledgements) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let pop = delete(format!("/v2/queues/{queue}/messages?pop={BATCH}"));
        let Ok(answer) = client.try_send(pop).await else {
            consumed.in_doubt = BATCH;
            return consumed;
        };
        let popped = ids(&answer.expect(200, "pop").json());
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
    /// What was acknowledged as deleted stays deleted; nothing else is gone.
    pub(super) async fn verify(&self, client: &Client) {
        let queue = &self.queue;
        let left = client.list_all(queue).await;
        let left: HashSet<_> = left.iter().map(|message| message["id"].as_str().unwrap()).collect();
        let gone: Vec<_> =
            self.consumed.iter().flat_map(|consumed| &consumed.acknowledged).collect();
        let unique: HashSet<_> = gone.iter().collect();
        assert_eq!(unique.len(), gone.len(), "{queue}: a message was given to two consumers");
        for id in &gone {
            assert!(!left.contains(id.as_str()), "{queue}: {id} came back");
        }
        for ids in gone.chunks(20) {
            let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
            let path = format!("/v2/queues/{queue}/messages?ids={}", ids.join(","));
            client.get(path).await.expect_error(404, "Not found", "deleted messages");
        }
        let in_doubt: usize = self.consumed.iter().map(|consumed| consumed.in_doubt).sum();
        let most = MESSAGES - gone.len();
        let range = most.saturating_sub(in_doubt)..=most;
        assert!(range.contains(&left.len()), "{queue}: {} are left, not {range:?}", left.len());
    }
}
