//! Deleting messages: one with or without a claim, or several by their ids.

use serde_json::json;
use tests::{Client, Row, TestApp, check, delete};

const NO_DELETE: &str = "Unable to delete";
const BAD_VALUE: &str = "Invalid API request";

async fn with_messages(count: usize) -> (Client, Vec<String>) {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..count).map(|n| json!(n))).await;
    (client, ids)
}

fn message(id: &str) -> String {
    format!("/v2/queues/q/messages/{id}")
}

/// Returns the bodies of the remaining messages, which are numbers.
async fn remaining(client: &Client) -> Vec<u64> {
    client.list_all("q").await.iter().map(|message| message["body"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn deleting_a_free_message_is_idempotent() {
    let (client, ids) = with_messages(2).await;
    for what in ["delete", "delete again"] {
        client.delete(message(&ids[0])).await.expect(204, what);
    }
    client.get(message(&ids[0])).await.expect_error(404, "Not found", "get");
    assert_eq!(remaining(&client).await, [1]);
}

#[tokio::test]
async fn deleting_a_missing_message_succeeds() {
    let (client, ids) = with_messages(1).await;
    client.create_queue("other", &json!({})).await;
    let zeros = "0".repeat(32);
    let rows: [Row; 6] = [
        ("an unknown id", delete(message(&zeros)), 204, ""),
        ("a malformed id", delete(message("nonsense")), 204, ""),
        ("another queue", delete(format!("/v2/queues/other/messages/{}", ids[0])), 204, ""),
        ("a missing queue", delete(format!("/v2/queues/missing/messages/{}", ids[0])), 204, ""),
        ("another project", delete(message(&ids[0])).header("x-project-id", "other"), 204, ""),
        ("bytes that are no text", delete(message("%FF")), 204, ""),
    ];
    check(&client, rows).await;
    assert_eq!(remaining(&client).await, [0], "none of them deleted the message");
}

#[tokio::test]
async fn a_claimed_message_can_only_be_deleted_with_its_claim() {
    let (client, ids) = with_messages(3).await;
    let claim = client.claim("q", 1).await.expect("messages are free").id;
    let other = client.claim("q", 1).await.expect("messages are free").id;
    let (claimed, free) = (message(&ids[0]), message(&ids[2]));
    let with = |path: &str, claim: &str| delete(format!("{path}?claim_id={claim}"));
    let rows: [Row; 9] = [
        ("without a claim", delete(&*claimed), 403, NO_DELETE),
        ("a blank claim is none", with(&claimed, ""), 403, NO_DELETE),
        ("another live claim", with(&claimed, &other), 403, NO_DELETE),
        ("a malformed claim", with(&claimed, "nonsense"), 400, NO_DELETE),
        ("an unknown claim", with(&claimed, &"0".repeat(claim.len())), 400, NO_DELETE),
        ("a claim on a free message", with(&free, &claim), 400, NO_DELETE),
        ("a malformed claim on a free message", with(&free, "nonsense"), 400, NO_DELETE),
        ("the claim itself", with(&claimed, &claim), 204, ""),
        ("the claim itself, again", with(&claimed, &claim), 204, ""),
    ];
    for row in rows {
        let (what, status) = (row.0, row.2);
        check(&client, [row]).await;
        let left: &[u64] = if status == 204 { &[1, 2] } else { &[0, 1, 2] };
        assert_eq!(remaining(&client).await, left, "after: {what}");
    }
}

#[tokio::test]
async fn a_deleted_message_is_removed_from_its_claim() {
    let (client, ids) = with_messages(2).await;
    let claim = client.claim("q", 2).await.expect("messages are free").id;
    let path = format!("/v2/queues/q/claims/{claim}");
    client.delete(format!("{}?claim_id={claim}", message(&ids[0]))).await.expect(204, "delete");
    let shown = client.get(&path).await.expect(200, "the claim").json();
    assert_eq!(shown["messages"].as_array().unwrap().len(), 1);
    client.delete(format!("{}?claim_id={claim}", message(&ids[1]))).await.expect(204, "delete");
    let shown =
        client.get(&path).await.expect(200, "the claim can be read until it expires").json();
    assert_eq!(shown["messages"], json!([]));
}

#[tokio::test]
async fn a_released_claim_cannot_delete() {
    let (client, ids) = with_messages(1).await;
    let claim = client.claim("q", 1).await.expect("a message is free").id;
    client.release("q", &claim).await;
    let stale = delete(format!("{}?claim_id={claim}", message(&ids[0])));
    check(&client, [("the claim does not exist", stale, 400, NO_DELETE)]).await;
    assert_eq!(remaining(&client).await, [0]);
    client.delete(message(&ids[0])).await.expect(204, "the message is free again");
}

#[tokio::test]
async fn a_claim_of_another_queue_cannot_delete() {
    let (client, ids) = with_messages(2).await;
    client.claim("q", 1).await.expect("a message is free");
    client.post_bodies("other", [json!(1)]).await;
    let foreign = client.claim("other", 1).await.expect("a message is free").id;
    let with = |id: &str| delete(format!("{}?claim_id={foreign}", message(id)));
    let rows: [Row; 2] = [
        ("a claimed message", with(&ids[0]), 400, NO_DELETE),
        ("a free message", with(&ids[1]), 400, NO_DELETE),
    ];
    check(&client, rows).await;
    assert_eq!(remaining(&client).await, [0, 1]);
}

#[tokio::test]
async fn many_messages_can_be_deleted_at_once() {
    let (client, ids) = with_messages(22).await;
    client.claim("q", 2).await.expect("messages are free");
    let many = |ids: &[String]| delete(format!("/v2/queues/q/messages?ids={}", ids.join(",")));
    let rows: [Row; 3] = [
        ("20 of them", many(&ids[..20]), 204, ""),
        ("again", many(&ids[..20]), 204, ""),
        ("an existing one among missing ones", many(&ids[19..21]), 204, ""),
    ];
    check(&client, rows).await;
    assert_eq!(remaining(&client).await, [21]);
}

#[tokio::test]
async fn missing_ids_are_ignored() {
    let (client, ids) = with_messages(2).await;
    let elsewhere = client.post_bodies("other", [json!(1)]).await.remove(0);
    let zeros = "0".repeat(32);
    let ids_in_query = ["nonsense", &zeros, &elsewhere, "%20", &ids[0], "%FF"].join(",");
    client.delete(format!("/v2/queues/q/messages?ids={ids_in_query}")).await.expect(204, "some");
    assert_eq!(remaining(&client).await, [1]);
    assert_eq!(client.counts("other").await, [1, 0, 1], "another queue keeps its message");
    let missing = format!("/v2/queues/missing/messages?ids={}", ids[1]);
    client.delete(missing).await.expect(204, "a missing queue");
    let foreign = delete(format!("/v2/queues/q/messages?ids={}", ids[1]));
    client.send(foreign.header("x-project-id", "other")).await.expect(204, "another project");
    assert_eq!(remaining(&client).await, [1]);
}

#[tokio::test]
async fn either_ids_or_pop_is_required() {
    let (client, ids) = with_messages(21).await;
    let collection = |query: &str| delete(format!("/v2/queues/q/messages?{query}"));
    let all = ids.join(",");
    let rows: [Row; 11] = [
        ("neither", delete("/v2/queues/q/messages"), 400, BAD_VALUE),
        ("something else", collection("limit=1"), 400, BAD_VALUE),
        ("both", collection(&format!("pop=1&ids={}", ids[0])), 400, BAD_VALUE),
        ("no id", collection("ids=,"), 400, BAD_VALUE),
        ("21 ids", collection(&format!("ids={all}")), 400, BAD_VALUE),
        ("pop 0", collection("pop=0"), 400, BAD_VALUE),
        ("pop -1", collection("pop=-1"), 400, BAD_VALUE),
        ("pop 21", collection("pop=21"), 400, BAD_VALUE),
        ("pop 1000000", collection("pop=1000000"), 400, BAD_VALUE),
        ("pop a word", collection("pop=all"), 400, "Invalid parameter"),
        ("claims are ignored", collection("ids=none&claim_ids=none"), 204, ""),
    ];
    check(&client, rows).await;
    assert_eq!(remaining(&client).await.len(), 21, "a refused call deletes nothing");
}
