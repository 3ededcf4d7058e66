//! Bulk deletion that requires claim ids, if configured.

use serde_json::json;
use tests::{Call, Client, TestApp, delete};

const SETTING: &str = "COMPAT__MESSAGE_DELETE_WITH_CLAIM_ID";

/// Posts five messages, and claims the first two by one claim and the third by another.
async fn with_claims(app: &TestApp) -> (Client, Vec<String>, [String; 2]) {
    let client = app.client();
    let ids = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    let first = client.claim("q", 2).await.expect("messages are free").id;
    let second = client.claim("q", 1).await.expect("messages are free").id;
    (client, ids, [first, second])
}

fn with(ids: &[&String], claims: &str) -> Call {
    let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
    delete(format!("/v2/queues/q/messages?ids={}&claim_ids={claims}", ids.join(",")))
}

async fn total(client: &Client) -> u64 {
    client.counts("q").await[2]
}

#[tokio::test]
async fn ids_and_claims_are_required_together() {
    let app = TestApp::builder().set(SETTING, "true").start();
    let (client, ids, [first, _]) = with_claims(&app).await;
    let calls = [
        ("ids alone", delete(format!("/v2/queues/q/messages?ids={}", ids[0]))),
        ("a free id alone", delete(format!("/v2/queues/q/messages?ids={}", ids[4]))),
        ("claims alone", delete(format!("/v2/queues/q/messages?claim_ids={first}"))),
        ("claims beside pop", delete(format!("/v2/queues/q/messages?pop=1&claim_ids={first}"))),
    ];
    for (what, call) in calls {
        let refused = client.send(call).await;
        assert_eq!(refused.status, 400, "{what}: {}", refused.text());
    }
    assert_eq!(total(&client).await, 5, "a refused call deletes nothing");
}

#[tokio::test]
async fn a_claim_can_delete_its_messages() {
    let app = TestApp::builder().set(SETTING, "true").start();
    let (client, ids, [first, second]) = with_claims(&app).await;
    client.send(with(&[&ids[0]], &first)).await.expect(204, "one of two");
    assert_eq!(total(&client).await, 4);
    let both = with(&[&ids[1], &ids[2]], &format!("{first},{second}"));
    client.send(both).await.expect(204, "of two claims");
    assert_eq!(total(&client).await, 2);
}

#[tokio::test]
async fn a_trailing_comma_and_malformed_claims_are_ignored() {
    let app = TestApp::builder().set(SETTING, "true").start();
    let (client, ids, [first, _]) = with_claims(&app).await;
    client.send(with(&[&ids[0]], &format!("{first},"))).await.expect(204, "a trailing comma");
    client.send(with(&[&ids[1]], &format!("nonsense,{first}"))).await.expect(204, "a malformed id");
    assert_eq!(total(&client).await, 3);
}

#[tokio::test]
async fn a_claim_that_holds_none_of_the_messages_is_refused() {
    let app = TestApp::builder().set(SETTING, "true").start();
    let (client, ids, [first, second]) = with_claims(&app).await;
    let unknown = "0".repeat(first.len());
    let calls = [
        ("another claim", with(&[&ids[0]], &second)),
        ("the right one and another", with(&[&ids[0]], &format!("{first},{second}"))),
        ("a free message", with(&[&ids[4]], &first)),
        ("an unknown claim", with(&[&ids[0]], &unknown)),
    ];
    for (what, call) in calls {
        let refused = client.send(call).await;
        assert_eq!(refused.status, 400, "{what}: {}", refused.text());
        assert_eq!(total(&client).await, 5, "{what}");
    }
}

#[tokio::test]
async fn claims_are_ignored_by_default() {
    let (client, ids, [_, second]) = with_claims(TestApp::shared()).await;
    client.send(with(&[&ids[0]], &second)).await.expect(204, "another claim");
    client.send(with(&[&ids[1]], "nonsense")).await.expect(204, "no claim");
    assert_eq!(total(&client).await, 3);
}
