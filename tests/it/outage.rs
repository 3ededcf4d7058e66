//! What clients see of a storage server that fails and recovers.

use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tests::{Call, Client, eventually, get, post};
use tokio::task::JoinSet;

/// How many outages a test may cause to find one that keeps the promised times.
const MAX_OUTAGES: usize = 3;

/// Looks for an outage within the promised times.
///
/// A busy machine only makes an outage take longer. One outage within the promised times therefore
/// proves the promise, and a slow one proves nothing.
#[derive(Default)]
pub(crate) struct Outages(Vec<(Duration, Duration)>);

impl Outages {
    /// Records an outage and returns whether both times are within the promise. Panics if they are
    /// not after [`MAX_OUTAGES`].
    pub(crate) fn record(
        &mut self,
        refusal: Duration,
        recovery: Duration,
        promise: &Promise,
    ) -> bool {
        self.0.push((refusal, recovery));
        let kept = refusal < promise.refusal && recovery < promise.recovery;
        assert!(kept || self.0.len() < MAX_OUTAGES, "refusals and recoveries took {:?}", self.0);
        kept
    }
}

/// How long a refusal and the recovery may take.
pub(crate) struct Promise {
    pub(crate) refusal: Duration,
    pub(crate) recovery: Duration,
}

/// Posts until a post succeeds. Returns how long that took.
pub(crate) async fn recovery(client: &Client) -> Duration {
    let start = Instant::now();
    let body = json!({"messages": [{"body": "again"}]}).to_string();
    eventually("the service works again", async || {
        let posted = client.send(post("/v2/queues/q/messages").body(body.clone())).await;
        match posted.status {
            201 => Some(start.elapsed()),
            status => {
                assert_eq!(status, 503, "{}", posted.text());
                None
            }
        }
    })
    .await
}

/// Sends requests of several kinds at once. Each must be refused as unavailable, with a time to
/// retry. Returns how long the slowest took.
pub(crate) async fn slowest_refusal(client: &Client) -> Duration {
    let body = json!({"messages": [{"body": 1}]});
    let calls = [
        post("/v2/queues/q/messages").json(&body),
        post("/v2/queues/q/claims"),
        get("/v2/queues/q/messages"),
        // A queue that does not exist yet.
        post("/v2/queues/new/messages").json(&body),
        get("/v2/queues/q/stats"),
    ];
    let refusals: JoinSet<_> =
        calls.into_iter().map(|call| assert_unavailable(client.clone(), call)).collect();
    refusals.join_all().await.into_iter().max().expect("several were sent")
}

async fn assert_unavailable(client: Client, call: Call) -> Duration {
    let what = format!("{call:?}");
    let start = Instant::now();
    let refused = client.send(call).await;
    refused.expect_error(503, "Service temporarily unavailable", &what);
    let retry = refused.headers.get(RETRY_AFTER).expect("a time to retry");
    assert!((1..=60).contains(&retry.to_str().unwrap().parse::<u32>().unwrap()), "{what}");
    start.elapsed()
}

/// Posts, claims, deletes, pops and lists messages, and deletes their queue.
pub(crate) async fn use_and_delete_a_queue(client: &Client) {
    let ids = client.post_bodies("q", (0..5).map(|n| json!({"n": n}))).await;
    assert_eq!(client.counts("q").await, [5, 0, 5]);
    let claim = client.claim("q", 2).await.unwrap();
    assert_eq!(claim.ids(), ids[..2]);
    for message in &claim.messages {
        client.delete(message["href"].as_str().unwrap()).await.expect(204, "delete");
    }
    assert_eq!(client.pop("q", 1).await[0]["body"], json!({"n": 2}));
    assert_eq!(client.bodies("q", "echo=true").await, [json!({"n": 3}), json!({"n": 4})]);
    client.delete("/v2/queues/q").await.expect(204, "delete the queue");
    assert_eq!(client.bodies("q", "echo=true").await, [] as [Value; 0]);
}
