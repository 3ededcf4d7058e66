//! How long messages are kept for groups.

use serde_json::{Value, json};
use tests::{Client, TestApp, post};

const GROUP: &str = "/v2/queues/q/groups/g";

async fn with_retention(retention: Value) -> Client {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({"_retention": retention})).await;
    client
}

/// What the group claims, all of it acknowledged.
async fn handled(client: &Client) -> Vec<Value> {
    let answer = client.send(post(format!("{GROUP}/claims?limit=20"))).await;
    if answer.status == 204 {
        return Vec::new();
    }
    let claim = answer.expect(201, "claim").json();
    let messages = claim["messages"].as_array().unwrap();
    let ids: Vec<_> = messages.iter().map(|message| message["id"].clone()).collect();
    let done = json!({"claim_id": claim["claim_id"], "acknowledged": ids});
    client.post(format!("{GROUP}/acknowledge"), &done).await.expect(200, "acknowledge");
    messages.iter().map(|message| message["body"].clone()).collect()
}

async fn from_the_start(client: &Client) -> Vec<Value> {
    client.post(format!("{GROUP}/seek"), &json!({"to": "start"})).await.expect(204, "seek");
    handled(client).await
}

#[tokio::test]
async fn what_all_are_done_with_can_be_replayed_until_its_ttl_ends() {
    let client = with_retention(json!("ttl")).await;
    client.post_bodies("q", [json!(1), json!(2)]).await;
    assert_eq!(client.pop("q", 2).await.len(), 2);
    client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
    assert_eq!(handled(&client).await, [1, 2]);
    assert_eq!(handled(&client).await, Vec::<Value>::new());
    assert_eq!(from_the_start(&client).await, [1, 2]);
    assert_eq!(client.counts("q").await, [0, 0, 0]);
    client.send(post("/v2/queues/q/purge")).await.expect(204, "purge");
    assert_eq!(from_the_start(&client).await, Vec::<Value>::new());
}

#[tokio::test]
async fn without_it_a_group_finds_what_the_queue_still_has() {
    for retention in [json!("acknowledged"), Value::Null] {
        let client = with_retention(retention).await;
        client.post_bodies("q", [json!(1), json!(2)]).await;
        client.pop("q", 1).await;
        client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
        assert_eq!(handled(&client).await, [2]);
        client.pop("q", 1).await;
        assert_eq!(from_the_start(&client).await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn it_holds_for_what_is_posted_from_then_on() {
    let client = with_retention(json!("acknowledged")).await;
    let set = |verb: &str, value: &str| json!([{"op": verb, "path": "/metadata/_retention", "value": value}]);
    client.post_bodies("q", [json!(1)]).await;
    client.patch_queue("q", &set("replace", "ttl")).await.expect(200, "change");
    client.post_bodies("q", [json!(2)]).await;
    client.patch_queue("q", &set("replace", "acknowledged")).await.expect(200, "change back");
    client.post_bodies("q", [json!(3)]).await;
    client.pop("q", 3).await;
    client.put(GROUP, &json!({"start": "start"})).await.expect(201, "a late group");
    assert_eq!(handled(&client).await, [2]);
}

#[tokio::test]
async fn another_value_is_refused() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for bad in [json!("forever"), json!(""), json!(true), json!(60), json!(["ttl"]), json!({})] {
        let answer = client.put("/v2/queues/r", &json!({"_retention": bad})).await;
        answer.expect_error(400, "Invalid API request", &bad.to_string());
        let add = json!([{"op": "add", "path": "/metadata/_retention", "value": bad}]);
        let answer = client.patch_queue("q", &add).await;
        answer.expect_error(400, "Invalid request body", &bad.to_string());
    }
}

#[tokio::test]
async fn a_post_of_too_many_messages_that_are_retained_is_refused() {
    let client = with_retention(json!("ttl")).await;
    let post = |count: usize| json!({"messages": vec![json!({"body": 1}); count]});
    let path = "/v2/queues/q/messages";
    client.post(path, &post(5_000)).await.expect(201, "as many as may be");
    client.post(path, &post(5_001)).await.expect_error(400, "Invalid API request", "one more");
    client.put(GROUP, &json!({})).await.expect(201, "a group counts too");
    client.post(path, &post(3_333)).await.expect(201, "as many as may be");
    client.post(path, &post(3_334)).await.expect_error(400, "Invalid API request", "one more");
}
