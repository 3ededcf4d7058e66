//! The metrics listener.

use serde_json::json;
use tests::{Client, TestApp, begin_post, eventually};

/// Returns the labels and values of the samples with a route, a method and a status.
fn request_samples(text: &str) -> Vec<(&str, f64)> {
    let labelled = |line: &&str| {
        !line.starts_with('#')
            && ["route=\"", "method=\"", "status=\""].iter().all(|l| line.contains(l))
    };
    // A histogram has several samples; only counters are of interest here.
    let plain =
        |line: &&str| !["_bucket{", "_sum{", "_count{"].iter().any(|part| line.contains(part));
    let split = |line| {
        let line: &str = line;
        let (labels, value) = line.rsplit_once(' ').expect("a sample has a value");
        (labels, value.parse().expect("the value is a number"))
    };
    text.lines().filter(labelled).filter(plain).map(split).collect()
}

/// Returns the count of message requests with this method and status.
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
    client.get("/v2/queues/queue-0/messages?limit=0").await.expect(400, "an invalid limit");
    assert_eq!(counted(&metrics, "POST", 201).await, 3.0);
    assert_eq!(counted(&metrics, "GET", 200).await, 1.0);
    assert_eq!(counted(&metrics, "GET", 400).await, 1.0);
    assert_eq!(counted(&metrics, "DELETE", 204).await, 0.0);
}

#[tokio::test]
async fn labels_contain_no_input_of_clients() {
    let app = TestApp::start();
    let client = app.client().project("project-of-a-customer");
    client.post_bodies("queue-of-a-customer", [json!(1)]).await;
    for n in 0..20 {
        client.get(format!("/unknown-{n}")).await.expect(404, "no route");
        client.get(format!("/v2/queues/queue-of-a-customer/messages/id-{n}")).await;
        client.send(tests::call(&format!("METHOD{n}"), "/v2/queues")).await;
    }
    let text = app.metrics().get("/metrics").await.expect(200, "metrics").text().into_owned();
    for part in ["of-a-customer", "unknown", "id-1", "METHOD1"] {
        assert!(!text.contains(part), "{part} is in:\n{text}");
    }
}

#[tokio::test]
async fn an_aborted_request_is_no_longer_in_flight() {
    let app = TestApp::start();
    for _ in 0..10 {
        drop(begin_post(&app.client(), "0123456789").await);
    }
    eventually("no request is in flight", async || {
        let text = app.metrics().get("/metrics").await.expect(200, "metrics").text().into_owned();
        let sample = text.lines().find(|line| line.contains("in_flight") && !line.starts_with('#'));
        sample.expect("a gauge of requests in flight").ends_with(" 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_server_is_alive_and_ready() {
    let metrics = TestApp::shared().metrics();
    for path in ["/livez", "/readyz"] {
        metrics.get(path).await.expect(200, path);
    }
}

#[tokio::test]
async fn each_listener_has_its_own_routes() {
    let app = TestApp::shared();
    let client = app.client();
    for path in ["/metrics", "/livez", "/readyz"] {
        client.get(path).await.expect_error(404, "404 Not Found", path);
    }
    for path in ["/", "/v2/", "/v2/queues", "/v2/ping"] {
        app.metrics().get(path).await.expect(404, path);
    }
}
