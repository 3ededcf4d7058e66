//! Projects are isolated from each other, whatever their names.

use serde_json::{Value, json};
use tests::{Client, TestApp};

/// Returns names that are patterns, separators or quotes in some languages.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "p",
        "P",
        "p1",
        "p.",
        ".p",
        "%",
        "p%",
        "_",
        "p_",
        "*",
        ".*",
        "p*",
        "?",
        ".",
        "..",
        "/",
        "p/q",
        "p//q",
        "../p",
        "\\",
        "p\\",
        ":",
        "p:q",
        "{p}",
        "[p]",
        "^p",
        "$",
        "p$",
        "|",
        "p q",
        "p  q",
        "p,q",
        "p;q",
        "p&q=1",
        "p#q",
        "'",
        "\"",
        "p' OR '1'='1",
        "p--",
        "%25",
        "%2F",
        "%00",
        "null",
        "None",
        "0",
        "-1",
        "é",
        "e\u{301}",
        "É",
        "漢字",
        "😀",
        "project",
        "projects",
    ]
    .map(str::to_owned)
    .to_vec();
    let longest = "x".repeat(255);
    names.extend([longest.clone() + "a", longest.clone() + "b", longest]);
    names
}

#[tokio::test]
async fn a_project_lists_only_its_own_queues_and_messages() {
    let app = TestApp::start();
    let client = app.client();
    let names = odd_names();
    for (n, name) in names.iter().enumerate() {
        let project = client.project(name);
        project.create_queue("shared-name", &json!({"n": n})).await;
        project.create_queue(&format!("own-{n}"), &json!({})).await;
        project.post_bodies("shared-name", [json!(n)]).await;
    }
    for (n, name) in names.iter().enumerate() {
        let project = client.project(name);
        let listed = project.get("/v2/queues?detailed=true&with_count=true").await.json();
        let queues = listed["queues"].as_array().unwrap();
        let found: Vec<_> = queues.iter().map(|queue| queue["name"].as_str().unwrap()).collect();
        assert_eq!(found, [format!("own-{n}").as_str(), "shared-name"], "{name:?}");
        assert_eq!(queues[1]["metadata"]["n"], n, "{name:?}");
        assert_eq!(listed["count"], 2, "{name:?}");
        assert_eq!(project.bodies("shared-name", "echo=true").await, [n], "{name:?}");
        assert_eq!(project.counts("shared-name").await, [1, 0, 1], "{name:?}");
    }
    let (first, second) = names.split_at(names.len() / 2);
    for (n, name) in first.iter().enumerate() {
        let project = client.project(name);
        if n % 2 == 0 {
            assert_eq!(project.pop("shared-name", 20).await.len(), 1, "{name:?}");
        }
        project.delete("/v2/queues/shared-name").await.expect(204, name);
    }
    assert_eq!(remaining(&client, first).await, 0);
    assert_eq!(remaining(&client, second).await, second.len(), "messages of other projects remain");
}

/// Returns how many of the projects still have their message.
async fn remaining(client: &Client, names: &[String]) -> usize {
    let mut count = 0;
    for name in names {
        count += client.project(name).bodies("shared-name", "echo=true").await.len();
    }
    count
}

#[tokio::test]
async fn names_with_separators_are_not_confused() {
    let client = TestApp::shared().client();
    let base = client.sends("x-project-id").to_owned();
    let pairs =
        [("", "a.b.c"), (".a", "b.c"), (".a.b", "c"), ("-a", "b-c"), ("_a", "b_c"), ("-a-b", "c")];
    for (n, (suffix, queue)) in pairs.iter().enumerate() {
        client.project(&format!("{base}{suffix}")).post_bodies(queue, [json!(n)]).await;
    }
    for (n, (suffix, queue)) in pairs.iter().enumerate() {
        let project = client.project(&format!("{base}{suffix}"));
        assert_eq!(project.bodies(queue, "echo=true").await, [n], "{suffix:?} {queue}");
        let listed = project.get("/v2/queues").await.json();
        assert_eq!(listed["queues"].as_array().unwrap().len(), 1, "{suffix:?} {queue}");
    }
}

#[tokio::test]
async fn ids_are_valid_only_in_their_project_and_queue() {
    let owner = TestApp::shared().client();
    let ids = owner.post_bodies("q", (0..3).map(|n| json!(n))).await;
    let claim = owner.claim("q", 1).await.expect("messages are free").id;
    let stranger = owner.project("another project");
    stranger.post_bodies("q", [json!("own")]).await;
    owner.post_bodies("other", [json!("own")]).await;
    for (client, queue) in [(&stranger, "q"), (&owner, "other"), (&stranger, "missing")] {
        try_all_calls(client, queue, &ids, &claim).await;
    }
    let left = owner.list_all("q").await;
    let found: Vec<_> = left.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(found, ids, "nothing was deleted");
    let shown = owner.get(format!("/v2/queues/q/claims/{claim}")).await.expect(200, "claim").json();
    assert_eq!(shown["ttl"], 300, "nothing was renewed");
    assert_eq!(owner.counts("q").await, [2, 1, 3], "nothing was released");
}

/// Reads, renews and deletes with ids of another project or queue.
async fn try_all_calls(client: &Client, queue: &str, ids: &[String], claim: &str) {
    let messages = format!("/v2/queues/{queue}/messages");
    for id in ids {
        let path = format!("{messages}/{id}");
        client.get(&path).await.expect_error(404, "Not found", &path);
        client.delete(&path).await.expect(204, &path);
        let by_claim = client.delete(format!("{path}?claim_id={claim}")).await;
        assert!(matches!(by_claim.status, 204 | 400), "{path}: {}", by_claim.text());
    }
    let all = format!("{messages}?ids={}", ids.join(","));
    client.get(&all).await.expect_error(404, "Not found", &all);
    client.delete(&all).await.expect(204, &all);
    let listed = client.list(queue, &format!("echo=true&marker={}", ids[0])).await;
    assert_eq!(listed["messages"], json!([]), "a marker of another queue");
    let path = format!("/v2/queues/{queue}/claims/{claim}");
    client.get(&path).await.expect_error(404, "Not found", &path);
    let renewed = client.patch_claim(queue, claim, &json!({"ttl": 4000})).await;
    renewed.expect_error(404, "Not found", &path);
    client.delete(&path).await.expect(204, &path);
}

#[tokio::test]
async fn purges_and_pops_affect_only_their_project() {
    let owner = TestApp::shared().client();
    owner.post_bodies("q", [json!(1)]).await;
    let stranger = owner.project("%");
    let empty: [Value; 0] = [];
    stranger.post("/v2/queues/q/purge", &json!({"resource_types": ["messages"]})).await;
    assert_eq!(stranger.pop("q", 20).await, empty);
    assert!(stranger.claim("q", 20).await.is_none());
    stranger.delete("/v2/queues/q").await.expect(204, "delete");
    assert_eq!(owner.counts("q").await, [1, 0, 1]);
}
