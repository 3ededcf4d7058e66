//! Claims that were created before the server was killed.

use std::time::Instant;

use serde_json::json;
use tests::{Claim, Client};

/// The largest ttl: no claim and no message expires during the test.
const TTL: u64 = 43_200;

/// A claim that is not released.
pub(super) struct Held {
    queue: String,
    claim: Claim,
    requested: Instant,
    created: Instant,
}

/// Posts five messages and claims three of them.
pub(super) async fn hold(client: &Client, queue: &str) -> Held {
    client.post_messages(queue, (0..5).map(|n| json!({"body": n, "ttl": TTL}))).await;
    let requested = Instant::now();
    let body = json!({"ttl": TTL, "grace": 60});
    let claim = client.claim_with(queue, 3, &body).await.expect("messages are free");
    Held { queue: queue.into(), claim, requested, created: Instant::now() }
}

impl Held {
    /// Checks that the claim holds the same messages and that its age has grown.
    pub(super) async fn verify(&self, client: &Client) {
        let queue = &self.queue;
        let path = format!("/v2/queues/{queue}/claims/{}", self.claim.id);
        let least = self.created.elapsed().as_secs().saturating_sub(1);
        let shown = client.get(path).await.expect(200, queue).json();
        let most = self.requested.elapsed().as_secs() + 1;
        assert_eq!(shown["ttl"], TTL, "{queue}");
        let age = shown["age"].as_u64().unwrap();
        assert!((least..=most).contains(&age), "{queue}: the claim is {age} s old");
        let messages = shown["messages"].as_array().unwrap();
        let ids: Vec<_> = messages.iter().map(|message| message["id"].as_str().unwrap()).collect();
        assert_eq!(ids, self.claim.ids(), "{queue}");
        assert_eq!(client.counts(queue).await, [2, 3, 5], "{queue}");
        let free = client.claim(queue, 20).await.expect("two messages are free");
        assert_eq!(free.messages.len(), 2, "{queue}: held messages were claimed");
        client.release(queue, &free.id).await;
    }

    /// Checks that the claim can delete one message and release the others.
    pub(super) async fn release(self, client: &Client) {
        let queue = &self.queue;
        let (claim, ids) = (&self.claim.id, self.claim.ids());
        let path = format!("/v2/queues/{queue}/messages/{}?claim_id={claim}", ids[0]);
        client.delete(path).await.expect(204, queue);
        client.release(queue, claim).await;
        assert_eq!(client.counts(queue).await, [4, 0, 4], "{queue}");
    }
}
