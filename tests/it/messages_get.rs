//! Getting messages by their ids.

use serde_json::{Value, json};
use tests::{Row, TestApp, check, get};

fn ids_of(found: &Value) -> Vec<&str> {
    let mut ids: Vec<_> = found["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_message_is_shown_as_it_was_posted() {
    let client = TestApp::shared().client();
    let id =
        client.post_messages("q", [json!({"body": [1, {"a": null}], "ttl": 70})]).await.remove(0);
    let href = format!("/v2/queues/q/messages/{id}");
    let shown = client.get(&href).await.expect(200, "get").json();
    let age = shown["age"].as_u64().unwrap();
    let expected = json!({"id": id, "href": href, "ttl": 70, "age": age, "body": [1, {"a": null}]});
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_missing_message_is_not_found() {
    let client = TestApp::shared().client();
    let id = client.post_bodies("q", [json!(1)]).await.remove(0);
    client.create_queue("other", &json!({})).await;
    let (zeros, next) = ("0".repeat(32), format!("{}f", &id[..31]));
    let row = |what, path: String| -> Row { (what, get(path), 404, "Not found") };
    let in_q = |id: &str| format!("/v2/queues/q/messages/{id}");
    let rows = [
        row("an unknown id", in_q(&zeros)),
        row("an id not given yet", in_q(&next)),
        row("a malformed id", in_q("nonsense")),
        row("an id that is too long", in_q(&format!("{id}0"))),
        row("an id that is too short", in_q(&id[1..])),
        row("an id with blanks around", in_q(&format!("%20{id}"))),
        row("a letter beyond ASCII", in_q("%C3%A9")),
        row("bytes that are no text", in_q("%FF")),
        row("another queue", format!("/v2/queues/other/messages/{id}")),
        row("a missing queue", format!("/v2/queues/missing/messages/{id}")),
        ("the message itself", get(in_q(&id)), 200, ""),
        ("another project", get(in_q(&id)).header("x-project-id", "other"), 404, "Not found"),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_path_of_a_claimed_message_contains_the_claim_id() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", [json!(1), json!(2)]).await;
    let plain = format!("/v2/queues/q/messages/{}", ids[0]);
    assert_eq!(client.get(&plain).await.json()["href"], plain, "before the claim");
    let claim = client.claim("q", 1).await.expect("a message is free");
    let named = format!("{plain}?claim_id={}", claim.id);
    assert_eq!(client.get(&plain).await.json()["href"], named, "single");
    let many = client.get(format!("/v2/queues/q/messages?ids={}", ids[0])).await.json();
    assert_eq!(many["messages"][0]["href"], named, "by ids");
    let listed = client.list("q", "echo=true&include_claimed=true").await;
    assert_eq!(listed["messages"][0]["href"], named, "listed");
    assert_eq!(claim.messages[0]["href"], named, "claimed");
    let other = format!("/v2/queues/q/messages/{}", ids[1]);
    assert_eq!(listed["messages"][1]["href"], other, "another message");
    client.release("q", &claim.id).await;
    assert_eq!(client.get(&plain).await.json()["href"], plain, "after the release");
}

#[tokio::test]
async fn many_messages_can_be_read_at_once() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..20).map(|n| json!(n))).await;
    client.claim("q", 5).await.expect("messages are free");
    let path = format!("/v2/queues/q/messages?ids={}", ids.join(","));
    let found = client.get(path).await.expect(200, "get").json();
    assert_eq!(ids_of(&found), ids);
    assert_eq!(found.as_object().unwrap().len(), 1, "no links");
}

#[tokio::test]
async fn missing_ids_are_skipped() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", [json!(1), json!(2)]).await;
    let elsewhere = client.post_bodies("other", [json!(1)]).await.remove(0);
    let asked = [&ids[1], "nonsense", &"0".repeat(32), &elsewhere, "%20", &ids[0], "%FF"].join(",");
    let path = format!("/v2/queues/q/messages?ids={asked}&limit=1&marker={}", ids[1]);
    let found = client.get(path).await.expect(200, "other parameters are ignored").json();
    assert_eq!(ids_of(&found), ids);
}

#[tokio::test]
async fn only_missing_ids_are_not_found() {
    let client = TestApp::shared().client();
    let id = client.post_bodies("q", [json!(1)]).await.remove(0);
    let rows: [Row; 3] = [
        ("unknown ids", get("/v2/queues/q/messages?ids=a,b"), 404, "Not found"),
        ("a missing queue", get(format!("/v2/queues/missing/messages?ids={id}")), 404, "Not found"),
        (
            "another project",
            get(format!("/v2/queues/q/messages?ids={id}")).header("x-project-id", "other"),
            404,
            "Not found",
        ),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_number_of_ids_is_from_1_to_20() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..21).map(|n| json!(n))).await;
    let ask = |ids: &[String]| get(format!("/v2/queues/q/messages?ids={}", ids.join(",")));
    let repeated = vec![ids[0].clone(); 21];
    let rows: [Row; 5] = [
        ("one", ask(&ids[..1]), 200, ""),
        ("20", ask(&ids[..20]), 200, ""),
        ("21", ask(&ids), 400, "Invalid API request"),
        ("one id 21 times", ask(&repeated), 400, "Invalid API request"),
        ("none", get("/v2/queues/q/messages?ids=,"), 400, "Invalid API request"),
    ];
    check(&client, rows).await;
}
