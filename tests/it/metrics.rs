//! The listener for operators.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, DEADLINE, TestApp, begin_post};
use tokio::time::interval;

/// The samples whose labels name a route, a method and a status, with their values.
fn request_samples(text: &str) -> Vec<(&str, f64)> {
    let labelled = |line: &&str| {
        !line.starts_with('#')
            && ["route=\"", "method=\"", "status=\""].iter().all(|l| line.contains(l))
    };
    // Histograms spread over several samples; a plain count is enough here.
    let plain =
        |line: &&str| !["_bucket{", "_sum{", "_count{"].iter().any(|part| line.contains(part));
    let split = |line| {
        let line: &str = line;
        let (labels, value) = line.rsplit_once(' ').expect("a sample has a value");
        (labels, value.parse().expect("the value is a number"))
    };
    text.lines().filter(labelled).filter(plain).map(split).collect()
}

/// How many requests were counted for messages, by this method and status.
async fn counted(metrics: &Client, method: &str, status: u16) -> f64 {
    let text = metrics.get("/metrics").await.expect(200, "metrics").text().into_owned();
    let wanted =
        [format!("method=\"{method}\""), format!("status=\"{status}\""), "/messages\"".to_owned()];
    let samples = request_samples(&text);
    let matching = samples.iter().filter(|(labels, _)| wanted.iter().all(|l| labels.contains(l)));
    matching.map(|(_, value)| value).sum()
}

#[tokio::test]
#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
async fn requests_are_counted_by_route_method_and_status() {
    let app = TestApp::start();
    let (client, metrics) = (app.client(), app.metrics());
    for n in 0..3 {
        client.post_bodies(&format!("queue-{n}"), [json!(1)]).await;
    }
    client.list("queue-0", "").await;
    client.get("/v2/queues/queue-0/messages?limit=0").await.expect(400, "a bad limit");
    assert_eq!(counted(&metrics, "POST", 201).await, 3.0);
    assert_eq!(counted(&metrics, "GET", 200).await, 1.0);
    assert_eq!(counted(&metrics, "GET", 400).await, 1.0);
    assert_eq!(counted(&metrics, "DELETE", 204).await, 0.0);
}

#[tokio::test]
async fn labels_do_not_grow_with_what_clients_send() {
    let app = TestApp::start();
    let client = app.client().project("project-of-a-customer");
    client.post_bodies("queue-of-a-customer", [json!(1)]).await;
    for n in 0..20 {
        client.get(format!("/unheard-of-{n}")).await.expect(404, "no route");
        client.get(format!("/v2/queues/queue-of-a-customer/messages/id-{n}")).await;
        client.send(tests::call(&format!("METHOD{n}"), "/v2/queues")).await;
    }
    let text = app.metrics().get("/metrics").await.expect(200, "metrics").text().into_owned();
    for part in ["of-a-customer", "unheard-of", "id-1", "METHOD1"] {
        assert!(!text.contains(part), "{part} is in:\n{text}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_not_counted_for_ever() {
    let app = TestApp::start();
    for _ in 0..10 {
        drop(begin_post(&app.client(), "0123456789").await);
    }
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(20)));
    loop {
        let text = app.metrics().get("/metrics").await.expect(200, "metrics").text().into_owned();
        let sample = text.lines().find(|line| line.contains("in_flight") && !line.starts_with('#'));
        let sample = sample.expect("a gauge of the requests under way").to_owned();
        if sample.ends_with(" 0") {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "nothing is under way any more, but: {sample}");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn the_server_is_alive_and_ready() {
    let metrics = TestApp::shared().metrics();
    for path in ["/livez", "/readyz"] {
        metrics.get(path).await.expect(200, path);
    }
}

#[tokio::test]
async fn each_listener_keeps_to_its_own() {
    let app = TestApp::shared();
    let client = app.client();
    for path in ["/metrics", "/livez", "/readyz"] {
        client.get(path).await.expect_error(404, "404 Not Found", path);
    }
    for path in ["/", "/v2/", "/v2/queues", "/v2/ping"] {
        app.metrics().get(path).await.expect(404, path);
    }
}
