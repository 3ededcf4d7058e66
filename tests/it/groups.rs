//! Consumer groups: each has its own delivery state of one queue.

use std::time::Instant;

use serde_json::{Value, json};
use tests::{Client, Response, TestApp, post, put};

const GROUPS: &str = "/v2/queues/q/groups";

async fn with_group(start: &str) -> Client {
    let client = TestApp::shared().client();
    let created = client.put(format!("{GROUPS}/g"), &json!({"start": start})).await;
    assert_eq!(created.expect(201, "create").header("location"), Some("/v2/queues/q/groups/g"));
    client
}

/// Claims messages for a group. Returns the id of the claim and its messages.
async fn claim(client: &Client, group: &str, limit: u32) -> Option<(String, Vec<Value>)> {
    let path = format!("{GROUPS}/{group}/claims?limit={limit}");
    let response = client.send(post(path)).await;
    if response.status == 204 {
        return None;
    }
    let response = response.expect(201, "claim");
    let claim = response.json();
    let id = claim["claim_id"].as_str().unwrap().to_owned();
    let location = format!("{GROUPS}/{group}/claims/{id}");
    assert_eq!(response.header("location"), Some(location.as_str()));
    Some((id, claim["messages"].as_array().unwrap().clone()))
}

async fn bodies(client: &Client, group: &str) -> Vec<Value> {
    let claim = claim(client, group, 20).await;
    let messages = claim.map(|(_, messages)| messages).unwrap_or_default();
    messages.into_iter().map(|message| message["body"].clone()).collect()
}

async fn acknowledge(client: &Client, body: &Value) -> Response {
    client.post(format!("{GROUPS}/g/acknowledge"), body).await
}

#[tokio::test]
async fn each_group_gets_every_message() {
    let client = with_group("end").await;
    client.put(format!("{GROUPS}/other"), &json!({})).await.expect(201, "another");
    client.post_bodies("q", [json!(1), json!(2)]).await;
    assert_eq!(bodies(&client, "g").await, [1, 2]);
    assert_eq!(client.pop("q", 2).await.len(), 2);
    assert_eq!(bodies(&client, "other").await, [1, 2]);
    assert_eq!(bodies(&client, "other").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_claim_of_a_group_shows_all_properties_of_its_messages() {
    let client = with_group("end").await;
    let message = json!({"body": {"a": 1}, "ttl": 600, "ordering_key": "k"});
    let ids = client.post_messages("q", [message, json!({"body": 2, "ttl": 600})]).await;
    let (id, mut messages) = claim(&client, "g", 5).await.unwrap();
    for message in &mut messages {
        let age = message.as_object_mut().unwrap().remove("age").unwrap();
        assert!(age.as_u64().is_some());
    }
    let expected = json!([
        {"id": ids[0], "sequence": 1, "claim_count": 1, "ordering_key": "k", "ttl": 600,
         "body": {"a": 1}},
        {"id": ids[1], "sequence": 2, "claim_count": 1, "ordering_key": null, "ttl": 600, "body": 2},
    ]);
    assert_eq!(json!(messages), expected);
    let path = format!("{GROUPS}/g/claims/{id}");
    let shown = client.get(&path).await.expect(200, "read").json();
    assert_eq!(shown["messages"].as_array().unwrap().len(), 2);
    assert_eq!(shown["ttl"], 300);
    client.send(tests::patch(&path).json(&json!({"ttl": 100}))).await.expect(204, "renew");
    assert_eq!(client.get(&path).await.expect(200, "renewed").json()["ttl"], 100);
    client.delete(&path).await.expect(204, "release");
    client.get(&path).await.expect_error(404, "Not found", "released");
    let (_, again) = claim(&client, "g", 5).await.unwrap();
    assert_eq!(again[0]["claim_count"], 2);
}

#[tokio::test]
async fn each_acknowledgement_has_its_own_result() {
    let client = with_group("end").await;
    let ids = client.post_bodies("q", (0..4).map(|n| json!(n))).await;
    let (id, _) = claim(&client, "g", 3).await.unwrap();
    let acknowledgement = json!({"claim_id": id, "acknowledged": [ids[0], ids[3], "nonsense"],
                      "failed": [{"id": ids[1]}, {"id": ids[2], "delay": 3600}]});
    let response = acknowledge(&client, &acknowledgement).await.expect(200, "acknowledge").json();
    let expected = json!({"results": [
        {"id": ids[0], "result": "acknowledged"},
        {"id": ids[3], "result": "not_held"},
        {"id": "nonsense", "result": "not_held"},
        {"id": ids[1], "result": "failed"},
        {"id": ids[2], "result": "failed"},
    ]});
    assert_eq!(response, expected);
    assert_eq!(bodies(&client, "g").await, [1, 3]);
    assert_eq!(client.counts("q").await, [4, 0, 4], "the default group");
    let again = acknowledge(&client, &acknowledgement).await.expect(200, "again").json();
    assert_eq!(again["results"][0]["result"], "not_held");
}

#[tokio::test]
async fn a_group_can_be_described_listed_and_deleted() {
    let client = TestApp::shared().client();
    let rule = json!({"dead_letter_queue": "dead", "max_claim_count": 3, "dead_letter_ttl": 600});
    for name in ["b", "a", "c"] {
        client.put(format!("{GROUPS}/{name}"), &rule).await.expect(201, name);
        client.send(put(format!("{GROUPS}/{name}"))).await.expect(204, "it exists");
    }
    client.post_bodies("q", [json!(1), json!(2)]).await;
    claim(&client, "a", 1).await.unwrap();
    let shown = client.get(format!("{GROUPS}/a")).await.expect(200, "read").json();
    assert_eq!(shown["name"], "a");
    assert_eq!(shown["max_claim_count"], 3);
    assert_eq!([&shown["backlog"], &shown["in_flight"]], [1, 1]);
    assert!(shown["oldest_age"].as_u64().is_some(), "{shown}");
    assert_eq!(shown["rate"], 0.0);
    let page = client.get(format!("{GROUPS}?limit=2")).await.expect(200, "list").json();
    let next = page["links"][0]["href"].as_str().unwrap();
    let rest = client.get(next).await.expect(200, "next").json();
    let names = |page: &Value| -> Vec<Value> {
        let groups = page["groups"].as_array().unwrap();
        groups.iter().map(|group| group["name"].clone()).collect()
    };
    assert_eq!([names(&page), names(&rest)].concat(), ["a", "b", "c"]);
    client.delete(format!("{GROUPS}/a")).await.expect(204, "delete");
    client.delete(format!("{GROUPS}/a")).await.expect(204, "again");
    client.get(format!("{GROUPS}/a")).await.expect_error(404, "Not found", "deleted");
    assert_eq!(bodies(&client, "b").await, [1, 2], "the other groups remain");
}

#[tokio::test]
async fn a_group_can_seek_back_and_forth() {
    let client = with_group("end").await;
    let before = jiff_now();
    let ids = client.post_bodies("q", (0..3).map(|n| json!(n))).await;
    let (id, _) = claim(&client, "g", 3).await.unwrap();
    acknowledge(&client, &json!({"claim_id": id, "acknowledged": ids})).await.expect(200, "done");
    let seek = format!("{GROUPS}/g/seek");
    for (to, expected) in [
        (json!("start"), vec![0, 1, 2]),
        (json!("end"), vec![]),
        (json!({"sequence": 2}), vec![1, 2]),
        (json!({"time": before}), vec![0, 1, 2]),
        (json!({"time": "2100-01-01T00:00:00Z"}), vec![]),
    ] {
        client.post(&seek, &json!({"to": to})).await.expect(204, "seek");
        assert_eq!(bodies(&client, "g").await, expected, "{to}");
    }
    let late = acknowledge(&client, &json!({"claim_id": id, "acknowledged": [ids[0]]})).await;
    assert_eq!(late.expect(200, "late").json()["results"][0]["result"], "not_held");
}

fn jiff_now() -> String {
    #[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
    jiff::Timestamp::now().to_string()
}

#[tokio::test]
async fn a_group_dead_letters_failed_messages() {
    let client = TestApp::shared().client();
    let rule = json!({"dead_letter_queue": "dead", "max_claim_count": 1});
    client.put(format!("{GROUPS}/g"), &rule).await.expect(201, "create");
    let ids = client.post_bodies("q", [json!("bad")]).await;
    let (id, _) = claim(&client, "g", 1).await.unwrap();
    let failed = json!({"claim_id": id, "failed": [{"id": ids[0]}]});
    acknowledge(&client, &failed).await.expect(200, "fail");
    assert!(claim(&client, "g", 1).await.is_none());
    assert_eq!(client.bodies("dead", "echo=true").await, ["bad"]);
    assert_eq!(client.bodies("q", "echo=true").await, ["bad"], "the default group");
}

#[tokio::test]
async fn a_claim_of_a_group_can_wait() {
    let client = with_group("end").await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.send(post(format!("{GROUPS}/g/claims?wait=20"))).await })
    };
    client.post_bodies("q", [json!(1)]).await;
    let claimed = waiting.await.unwrap().expect(201, "the claim waited").json();
    assert_eq!(claimed["messages"][0]["body"], 1);
}

#[tokio::test]
async fn groups_survive_a_crash() {
    let mut app = TestApp::start();
    let client = app.client();
    client.put(format!("{GROUPS}/g"), &json!({})).await.expect(201, "create");
    let ids = client.post_bodies("q", (0..3).map(|n| json!(n))).await;
    let (id, _) = claim(&client, "g", 2).await.unwrap();
    acknowledge(&client, &json!({"claim_id": id, "acknowledged": [ids[0]]}))
        .await
        .expect(200, "acknowledge");
    client.pop("q", 3).await;
    app.kill();
    app.restart();
    let client = client.reconnected();
    assert_eq!(bodies(&client, "g").await, [2]);
    client.delete(format!("{GROUPS}/g/claims/{id}")).await.expect(204, "release");
    assert_eq!(bodies(&client, "g").await, [1]);
}

#[tokio::test]
async fn a_missing_group_is_not_found() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for queue in ["missing", "q"] {
        let group = format!("/v2/queues/{queue}/groups/none");
        client.get(&group).await.expect_error(404, "Not found", "get");
        client.delete(&group).await.expect(204, "delete");
        for (path, body) in [
            ("claims", json!({})),
            ("seek", json!({"to": "end"})),
            ("acknowledge", json!({"claim_id": "x", "acknowledged": ["y"]})),
        ] {
            let response = client.post(format!("{group}/{path}"), &body).await;
            response.expect_error(404, "Not found", path);
        }
    }
    let none = client.get("/v2/queues/missing/groups").await.expect(200, "list").json();
    assert_eq!(none, json!({"groups": [], "links": []}));
}

#[tokio::test]
async fn invalid_input_is_refused_and_changes_nothing() {
    let client = with_group("end").await;
    for body in [
        json!({"start": "middle"}),
        json!({"start": 1}),
        json!({"start": null}),
        json!({"start": {"sequence": true}}),
        json!({"start": {"time": "soon"}}),
        json!({"start": {"sequence": -1}}),
        json!({"start": {"time": "2030-01-01T00:00:00Z", "sequence": 1}}),
        json!({"unknown": 1}),
        json!({"dead_letter_queue": "dead"}),
        json!({"max_claim_count": 1}),
        json!({"dead_letter_ttl": 60}),
        json!({"dead_letter_queue": "dead", "dead_letter_ttl": 60}),
        json!({"dead_letter_queue": "a b", "max_claim_count": 1}),
        json!({"dead_letter_queue": 7, "max_claim_count": 1}),
        json!({"dead_letter_queue": "dead", "max_claim_count": 0}),
        json!({"dead_letter_queue": "dead", "max_claim_count": 1, "dead_letter_ttl": 59}),
        json!([]),
    ] {
        let response = client.put(format!("{GROUPS}/new"), &body).await;
        assert_eq!(response.status, 400, "{body}: {}", response.text());
    }
    let long = "x".repeat(65);
    for name in ["a%20b", "%C3%A4", long.as_str()] {
        let response = client.put(format!("{GROUPS}/{name}"), &json!({})).await;
        assert_eq!(response.status, 400, "{name}: {}", response.text());
    }
    for body in [json!({}), json!({"to": null}), json!({"to": "back"})] {
        let response = client.post(format!("{GROUPS}/g/seek"), &body).await;
        assert_eq!(response.status, 400, "{body}: {}", response.text());
    }
    for body in [
        json!({"acknowledged": ["x"]}),
        json!({"claim_id": 1, "acknowledged": ["x"]}),
        json!({"claim_id": "c", "acknowledged": "x"}),
        json!({"claim_id": "c", "acknowledged": [1]}),
        json!({"claim_id": "c", "failed": ["x"]}),
        json!({"claim_id": "c", "failed": [{"id": "x", "delay": -1}]}),
        json!({"claim_id": "c", "failed": [{"id": "x", "delay": 43201}]}),
        json!({"claim_id": "c", "failed": [{"id": "x", "delay": "1"}]}),
        json!({"claim_id": "c", "acknowledged": vec!["x"; 21]}),
    ] {
        let response = acknowledge(&client, &body).await;
        assert_eq!(response.status, 400, "{body}: {}", response.text());
    }
    let groups = client.get(GROUPS).await.expect(200, "list").json();
    assert_eq!(groups["groups"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_purge_empties_the_groups_as_well() {
    let client = with_group("end").await;
    client.post_bodies("q", [json!(1), json!(2)]).await;
    let purge = json!({"resource_types": ["messages"]});
    client.post("/v2/queues/q/purge", &purge).await.expect(204, "purge");
    assert_eq!(bodies(&client, "g").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_limit_of_a_post_depends_on_the_number_of_groups() {
    let client = with_group("end").await;
    let post = |count: usize| json!({"messages": vec![json!({"body": 1}); count]});
    client.post("/v2/queues/q/messages", &post(5_000)).await.expect(201, "two groups");
    let refused = client.post("/v2/queues/q/messages", &post(5_001)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    client.post("/v2/queues/plain/messages", &post(5_001)).await.expect(201, "one group");
}

#[tokio::test]
async fn the_number_of_groups_is_limited() {
    let client = TestApp::shared().client();
    for n in 0..100 {
        client.put(format!("{GROUPS}/{n}"), &json!({})).await.expect(201, "create");
    }
    let one_more = client.put(format!("{GROUPS}/more"), &json!({})).await;
    assert_eq!(one_more.status, 409, "{}", one_more.text());
    client.put(format!("{GROUPS}/7"), &json!({})).await.expect(204, "it exists");
}

#[tokio::test]
async fn the_rate_is_the_number_of_acknowledgements_per_second_in_the_last_minute() {
    let client = with_group("end").await;
    client.post_bodies("q", (0..12).map(|n| json!(n))).await;
    let (id, messages) = claim(&client, "g", 12).await.unwrap();
    let ids: Vec<_> = messages.iter().map(|message| message["id"].clone()).collect();
    let done = json!({"claim_id": id, "acknowledged": ids});
    let start = Instant::now();
    acknowledge(&client, &done).await.expect(200, "acknowledge");
    let shown = client.get(format!("{GROUPS}/g")).await.expect(200, "read").json();
    // When a minute of the clock ends, the acknowledgements lose their weight over the next one.
    let least = 0.2 * (1.0 - start.elapsed().as_secs_f64() / 60.0) - 0.01;
    let rate = shown["rate"].as_f64().unwrap();
    assert!((least..=0.2).contains(&rate), "{shown}");
}
