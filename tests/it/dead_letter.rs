//! Messages that exceed their claim count move to the dead-letter queue.

use serde_json::{Value, json};
use tests::{Client, TestApp};

/// Claims the free messages and releases them, `times` times.
async fn claim_and_release(client: &Client, queue: &str, times: usize) {
    for n in 0..times {
        let claim = client.claim(queue, 20).await;
        let claim = claim.unwrap_or_else(|| panic!("no free message in claim {n}"));
        client.release(queue, &claim.id).await;
    }
}

async fn with_dead_letters(metadata: Value) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("dead", &json!({})).await;
    client.create_queue("q", &metadata).await;
    client
}

#[tokio::test]
async fn a_message_that_exceeds_its_claim_count_is_moved() {
    let client = with_dead_letters(json!({
        "_max_claim_count": 2, "_dead_letter_queue": "dead", "_dead_letter_queue_messages_ttl": 9999,
    }))
    .await;
    let id = client.post_bodies("q", [json!({"a": [1]})]).await.remove(0);
    claim_and_release(&client, "q", 2).await;
    assert!(client.claim("q", 1).await.is_none(), "the third claim finds nothing");

    assert_eq!(client.counts("q").await, [0, 0, 0]);
    let old = format!("/v2/queues/q/messages/{id}");
    client.get(old).await.expect_error(404, "Not found", "in its old queue");
    let dead = client.list_all("dead").await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["body"], json!({"a": [1]}));
    let (ttl, age) = (dead[0]["ttl"].as_u64().unwrap(), dead[0]["age"].as_u64().unwrap());
    assert!((9999..=9999 + age + 1).contains(&ttl), "{}", dead[0]);
    assert_eq!(client.counts("dead").await, [1, 0, 1], "the message is free there");
    let shown = client.get(dead[0]["href"].as_str().unwrap()).await.expect(200, "get").json();
    assert_eq!(shown["id"], dead[0]["id"]);
    assert!(client.claim("dead", 1).await.is_some());
}

#[tokio::test]
async fn a_dead_letter_keeps_its_ttl_by_default() {
    let metadata = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"});
    let client = with_dead_letters(metadata).await;
    client.post_messages("q", [json!({"body": 1, "ttl": 5000})]).await;
    claim_and_release(&client, "q", 1).await;
    assert!(client.claim("q", 1).await.is_none());
    let dead = client.list_all("dead").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["ttl"], 5000);
}

#[tokio::test]
async fn both_settings_are_required() {
    for metadata in [
        json!({"_max_claim_count": 1}),
        json!({"_dead_letter_queue": "dead"}),
        json!({"_max_claim_count": 0, "_dead_letter_queue": "dead"}),
        json!({"_max_claim_count": null, "_dead_letter_queue": "dead"}),
        json!({"_max_claim_count": 1, "_dead_letter_queue": null}),
    ] {
        let what = metadata.to_string();
        let client = with_dead_letters(metadata).await;
        client.post_bodies("q", [json!(1)]).await;
        claim_and_release(&client, "q", 4).await;
        assert_eq!(client.counts("q").await, [1, 0, 1], "{what}");
        assert_eq!(client.counts("dead").await, [0, 0, 0], "{what}");
    }
}

#[tokio::test]
async fn only_messages_that_exceed_their_claim_count_are_moved() {
    let metadata = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"});
    let client = with_dead_letters(metadata).await;
    client.post_bodies("q", [json!("old 1"), json!("old 2")]).await;
    claim_and_release(&client, "q", 1).await;
    client.post_bodies("q", [json!("new")]).await;
    let claim = client.claim("q", 20).await.expect("one message is free");
    let bodies: Vec<_> = claim.messages.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, ["new"]);
    let dead = client.list_all("dead").await;
    let bodies: Vec<_> = dead.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, ["old 1", "old 2"], "in their order");
    assert_eq!(client.counts("q").await, [0, 1, 1]);
}

#[tokio::test]
async fn a_missing_dead_letter_queue_loses_no_message() {
    let client = TestApp::shared().client();
    let metadata = json!({"_max_claim_count": 1, "_dead_letter_queue": "created-when-needed"});
    client.create_queue("q", &metadata).await;
    client.post_bodies("q", [json!(1)]).await;
    claim_and_release(&client, "q", 1).await;
    assert!(client.claim("q", 1).await.is_none());
    let dead = client.list_all("created-when-needed").await;
    assert_eq!(dead.len() as u64 + client.counts("q").await[2], 1, "neither lost nor duplicated");
}

#[tokio::test]
async fn a_popped_message_shows_its_claim_count() {
    let metadata = json!({"_max_claim_count": 5, "_dead_letter_queue": "dead"});
    let client = with_dead_letters(metadata).await;
    client.post_bodies("q", [json!(1)]).await;
    claim_and_release(&client, "q", 3).await;
    assert_eq!(client.pop("q", 1).await[0]["claim_count"], 3);
}
