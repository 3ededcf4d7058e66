//! Clients that post until the server is gone, each its own numbers in order.

use serde_json::{Value, json};
use tests::{Client, post};
use tokio::task::JoinSet;

use super::Acknowledgements;

const POSTERS: usize = 8;

/// The most messages in one post.
const MAX_BATCH: usize = 3;

pub(super) struct Posters {
    queue: String,
    tasks: JoinSet<Posted>,
}

/// What one client knows of its posts.
struct Posted {
    poster: usize,
    /// The ids of its messages, which it numbered from 0 on.
    acknowledged: Vec<String>,
    /// How many messages were in the post that nobody answered.
    in_doubt: usize,
}

pub(super) fn start(client: &Client, queue: &str, acknowledged: &Acknowledgements) -> Posters {
    let mut tasks = JoinSet::new();
    for poster in 0..POSTERS {
        tasks.spawn(post_until_gone(client.clone(), queue.into(), poster, acknowledged.clone()));
    }
    Posters { queue: queue.into(), tasks }
}

async fn post_until_gone(
    client: Client,
    queue: String,
    poster: usize,
    acknowledgements: Acknowledgements,
) -> Posted {
    let mut acknowledged = Vec::new();
    for size in (1..=MAX_BATCH).cycle() {
        let number = acknowledged.len();
        let message = |n| json!({"body": [poster, number + n], "ttl": 3600});
        let body = json!({"messages": (0..size).map(message).collect::<Vec<_>>()});
        let call = post(format!("/v2/queues/{queue}/messages")).json(&body);
        let Ok(answer) = client.try_send(call).await else {
            return Posted { poster, acknowledged, in_doubt: size };
        };
        let resources = answer.expect(201, "post").json()["resources"].clone();
        let id = |path: &Value| path.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        acknowledged.extend(resources.as_array().unwrap().iter().map(id));
        acknowledgements.count_one();
    }
    unreachable!("a cycle has no end");
}

impl Posters {
    pub(super) async fn finish(self) -> Outcome {
        Outcome { queue: self.queue, posted: self.tasks.join_all().await }
    }
}

pub(super) struct Outcome {
    queue: String,
    posted: Vec<Posted>,
}

impl Outcome {
    /// Every acknowledged message is there once, in the order of its client; a post that was
    /// not acknowledged is there as a whole or not at all.
    pub(super) async fn verify(&self, client: &Client) {
        let stored = client.list_all(&self.queue).await;
        for posted in &self.posted {
            let what = format!("poster {} in {}", posted.poster, self.queue);
            let own: Vec<_> =
                stored.iter().filter(|message| message["body"][0] == posted.poster).collect();
            for (n, message) in own.iter().enumerate() {
                assert_eq!(message["body"][1], n, "{what}: out of order, or more than once");
            }
            for (message, id) in own.iter().zip(&posted.acknowledged) {
                assert_eq!(message["id"], json!(id), "{what}");
            }
            let sure = posted.acknowledged.len();
            let whole = [sure, sure + posted.in_doubt];
            assert!(whole.contains(&own.len()), "{what}: {} stored, not {whole:?}", own.len());
        }
    }
}
