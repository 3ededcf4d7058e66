//! What clients see of a server that comes and goes.

use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tests::{Client, DEADLINE, get, post};
use tokio::time::interval;

/// Posts until that works; answers how long it took.
pub(crate) async fn until_it_works(client: &Client) -> Duration {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
    let body = json!({"messages": [{"body": "again"}]}).to_string();
    loop {
        let posted = client.send(post("/v2/queues/q/messages").body(body.clone())).await;
        match posted.status {
            201 => return start.elapsed(),
            status => assert_eq!(status, 503, "{}", posted.text()),
        }
        assert!(start.elapsed() < DEADLINE, "it never works again");
        ticks.tick().await;
    }
}

/// Refused in the shape of all errors, with a time to come back.
pub(crate) async fn assert_unavailable(client: &Client) {
    let body = json!({"messages": [{"body": 1}]});
    let calls = [
        post("/v2/queues/q/messages").json(&body),
        post("/v2/queues/q/claims"),
        get("/v2/queues/q/messages"),
        // One that is not there yet.
        post("/v2/queues/new/messages").json(&body),
        get("/v2/queues/q/stats"),
    ];
    for call in calls {
        let what = format!("{call:?}");
        let start = Instant::now();
        let refused = client.send(call).await;
        refused.expect_error(503, "Service temporarily unavailable", &what);
        let retry = refused.headers.get(RETRY_AFTER).expect("it says when to come back");
        assert!((1..=60).contains(&retry.to_str().unwrap().parse::<u32>().unwrap()), "{what}");
        // The promise is two seconds; the machine has other things to do.
        assert!(start.elapsed() < Duration::from_secs(3), "{what}: {:?}", start.elapsed());
    }
}

/// The life of a queue, in short.
pub(crate) async fn a_queue_lives_and_goes(client: &Client) {
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
