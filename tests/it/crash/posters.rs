//! Clients that post numbered messages until the server is killed.

use serde_json::{Value, json};
use tests::{Client, post};
use tokio::task::JoinSet;

use super::acknowledgements::Acknowledgements;

const POSTERS: usize = 8;

/// Maximum number of messages in one post.
const MAX_BATCH: usize = 3;

pub(super) struct Posters {
    queue: String,
    tasks: JoinSet<Posted>,
}

/// The posts of one client.
struct Posted {
    poster: usize,
    /// The ids of its messages, which are numbered from 0.
    acknowledged: Vec<String>,
    /// The number of messages in the post without a response.
    in_doubt: usize,
}

pub(super) fn start(client: &Client, queue: &str, acknowledged: &Acknowledgements) -> Posters {
    let mut tasks = JoinSet::new();
    for poster in 0..POSTERS {
        tasks.spawn(post_until_killed(client.clone(), queue.into(), poster, acknowledged.clone()));
    }
    Posters { queue: queue.into(), tasks }
}

async fn post_until_killed(
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
        let Ok(response) = client.try_send(call).await else {
            return Posted { poster, acknowledged, in_doubt: size };
        };
        let resources = response.expect(201, "post").json()["resources"].clone();
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
    /// Checks that each acknowledged message is stored once, in the order of its client, and that a
    /// post without a response is stored completely or not at all.
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
            let certain = posted.acknowledged.len();
            let complete = [certain, certain + posted.in_doubt];
            assert!(
                complete.contains(&own.len()),
                "{what}: {} stored, not {complete:?}",
                own.len()
            );
        }
    }
}
