//! Many clients of one queue: each message goes to one of them.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Client, TestApp, put};
use tokio::task::JoinSet;

const CLIENTS: usize = 8;

/// Runs one task for each client concurrently and returns their results.
async fn concurrently<T, F>(client: &Client, task: impl Fn(Client, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks: JoinSet<T> = (0..CLIENTS).map(|n| task(client.clone(), n)).collect();
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result.unwrap());
    }
    results
}

fn ids(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn only_one_client_creates_a_queue() {
    let client = TestApp::shared().client();
    for n in 0..5 {
        let path = format!("/v2/queues/q{n}");
        let create = |client: Client, _| {
            let call = put(path.clone());
            async move { client.send(call).await.status }
        };
        let mut statuses = concurrently(&client, create).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 204, 204, 204, 204, 204, 204, 204]);
    }
}

#[tokio::test]
async fn each_message_is_claimed_once() {
    let client = TestApp::shared().client();
    let posted = client.post_bodies("q", (0..200).map(|n| json!(n))).await;
    let claims = concurrently(&client, |client, n| async move {
        let mut claimed = Vec::new();
        while let Some(claim) = client.claim("q", 1 + u32::try_from(n).unwrap()).await {
            claimed.extend(claim.ids());
        }
        claimed
    });
    let claimed: Vec<_> = claims.await.concat();
    assert_eq!(claimed.len(), posted.len(), "none was taken twice");
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), posted.into_iter().collect());
    assert_eq!(client.counts("q").await, [0, 200, 200]);
}

#[tokio::test]
async fn each_message_is_popped_once() {
    let client = TestApp::shared().client();
    let posted = client.post_bodies("q", (0..200).map(|n| json!(n))).await;
    let popped = concurrently(&client, |client, n| async move {
        let mut popped = Vec::new();
        loop {
            let messages = client.pop("q", 1 + u32::try_from(n).unwrap()).await;
            if messages.is_empty() {
                return popped;
            }
            popped.extend(ids(&messages));
        }
    });
    let popped: Vec<_> = popped.await.concat();
    assert_eq!(popped.len(), posted.len(), "none was taken twice");
    assert_eq!(popped.into_iter().collect::<HashSet<_>>(), posted.into_iter().collect());
    assert_eq!(client.counts("q").await, [0, 0, 0]);
}

#[tokio::test]
async fn concurrent_claims_and_pops_lose_no_message() {
    let client = TestApp::shared().client();
    let posted = client.post_bodies("q", (0..150).map(|n| json!(n))).await;
    let taken = concurrently(&client, |client, n| async move {
        let mut taken = Vec::new();
        for _ in 0..8 {
            if n % 2 == 0 {
                taken.extend(ids(&client.pop("q", 2).await));
            } else if let Some(claim) = client.claim("q", 2).await {
                for id in claim.ids() {
                    let path = format!("/v2/queues/q/messages/{id}?claim_id={}", claim.id);
                    client.delete(path).await.expect(204, "delete by the claim");
                    taken.push(id);
                }
            }
        }
        taken
    });
    let taken: Vec<_> = taken.await.concat();
    let unique: HashSet<_> = taken.iter().collect();
    assert_eq!(unique.len(), taken.len(), "none was taken twice");
    let left = client.list_all("q").await.len();
    assert_eq!(left + taken.len(), posted.len(), "none was lost");
}

#[tokio::test]
async fn messages_of_one_post_are_consecutive() {
    let client = TestApp::shared().client();
    concurrently(&client, |client, n| async move {
        for round in 0..10 {
            client.post_bodies("q", (0..5).map(|part| json!([n, round, part]))).await;
        }
    })
    .await;
    let messages = client.list_all("q").await;
    assert_eq!(messages.len(), CLIENTS * 50);
    for batch in messages.chunks(5) {
        for (part, message) in batch.iter().enumerate() {
            let expected = json!([batch[0]["body"][0], batch[0]["body"][1], part]);
            assert_eq!(message["body"], expected, "a batch is consecutive");
        }
    }
}

#[tokio::test]
async fn no_acknowledged_change_of_metadata_is_lost() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let changed = concurrently(&client, |client, n| async move {
        let mut changed = Vec::new();
        for round in 0..5 {
            let key = format!("key-{n}-{round}");
            let path = format!("/metadata/{key}");
            let add = json!([{"op": "add", "path": path, "value": round}]);
            if client.patch_queue("q", &add).await.status == 200 {
                changed.push((key, round));
            }
        }
        changed
    });
    let changed: Vec<_> = changed.await.concat();
    assert!(!changed.is_empty());
    let shown = client.get("/v2/queues/q").await.json();
    for (key, value) in changed {
        assert_eq!(shown[&key], value, "{key} in {shown}");
    }
}

/// A queue that is deleted while others create it exists afterwards or not. In both cases, a later
/// post is not lost.
#[tokio::test]
async fn a_concurrent_creation_and_deletion_loses_no_later_message() {
    let client = TestApp::shared().client();
    for n in 0..60 {
        let queue = format!("q{n}");
        concurrently(&client, |client, number| {
            let path = format!("/v2/queues/{queue}");
            async move {
                let call = if number % 4 == 3 { tests::delete(path) } else { put(path) };
                client.send(call).await.status
            }
        })
        .await;
        client.post_bodies(&queue, [json!("kept")]).await;
        assert_eq!(client.bodies(&queue, "echo=true").await, ["kept"]);
    }
    // By now, the node has evicted a wrong cache entry, and reads every queue from the catalog.
    for n in 0..60 {
        client.put(format!("/v2/queues/q{n}"), &json!({})).await.expect(204, "it exists");
        assert_eq!(client.bodies(&format!("q{n}"), "echo=true").await, ["kept"]);
    }
}
