//! Headers of responses.

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::json;
use tests::{Client, TestApp, call, connect_and_send, delete, get, head, patch, post, put};

#[tokio::test]
async fn every_response_has_a_unique_request_id() {
    let app = TestApp::shared();
    let client = app.client();
    let calls = [
        ("200", get("/v2/queues")),
        ("201", put("/v2/queues/ids")),
        ("204", get("/v2/ping")),
        ("400", get("/v2/queues").without("client-id")),
        ("404 for a route", get("/nothing")),
        ("404 for a resource", get("/v2/queues/ids/messages/none")),
        ("405", put("/v2/queues")),
        ("406", get("/v2/queues").header("accept", "text/plain")),
        ("415", call("PATCH", "/v2/queues/ids").body("[]")),
        ("300", get("/")),
    ];
    let mut seen = std::collections::HashSet::new();
    for (what, call) in calls {
        let response = client.send(call).await;
        response.expect_request_id(what);
        let id = response.header("x-openstack-request-id").unwrap().to_owned();
        assert!(seen.insert(id), "{what}: the id was given before");
    }
}

#[tokio::test]
async fn responses_with_json_have_its_content_type() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let posted = json!({"messages": [{"body": 1}]});
    let calls = [
        ("list queues", get("/v2/queues"), 200),
        ("show a queue", get("/v2/queues/q"), 200),
        ("post", post("/v2/queues/q/messages").json(&posted), 201),
        ("list messages", get("/v2/queues/q/messages"), 200),
        ("stats", get("/v2/queues/q/stats"), 200),
        ("claim", post("/v2/queues/q/claims"), 201),
        ("pop", delete("/v2/queues/q/messages?pop=1"), 200),
        ("patch", patch("/v2/queues/q").body("[]"), 200),
    ];
    for (what, call, status) in calls {
        let response = client.send(call).await.expect(status, what);
        assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
        let length = response.body.len().to_string();
        assert_eq!(response.header("content-length"), Some(length.as_str()), "{what}");
    }
}

#[tokio::test]
async fn creating_a_queue_returns_an_empty_document() {
    let client = TestApp::shared().client();
    let created = client.send(put("/v2/queues/q")).await.expect(201, "create");
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("content-length"), Some("0"));
    assert!(created.body.is_empty());
}

#[tokio::test]
async fn responses_without_content_have_neither_type_nor_length() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    let calls = [
        ("create again", put("/v2/queues/q")),
        ("nothing to claim", post("/v2/queues/q/claims")),
        ("purge", post("/v2/queues/q/purge")),
        ("delete messages", delete("/v2/queues/q/messages?ids=none")),
        ("delete a message", delete("/v2/queues/q/messages/none")),
        ("release a claim", delete("/v2/queues/q/claims/none")),
        ("delete a queue", delete("/v2/queues/q")),
        ("ping", get("/v2/ping")),
    ];
    for (what, call) in calls {
        let response = client.send(call).await.expect(204, what);
        assert!(!response.headers.contains_key(CONTENT_TYPE), "{what}: {:?}", response.headers);
        assert!(!response.headers.contains_key(CONTENT_LENGTH), "{what}: {:?}", response.headers);
        assert!(response.body.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn locations_are_paths() {
    let client = TestApp::shared().client();
    let created = client.send(put("/v2/queues/q")).await;
    assert_eq!(created.header("location"), Some("/v2/queues/q"));
    let posted = json!({"messages": [{"body": 1}]});
    for host in ["evil.example", "127.0.0.1"] {
        let post = post("/v2/queues/q/messages").json(&posted).header("host", host);
        let location = client.send(post).await.header("location").unwrap().to_owned();
        assert!(location.starts_with("/v2/queues/q/messages?ids="), "{host}: {location}");
    }
    let claimed = client.post("/v2/queues/q/claims", &json!({})).await;
    assert!(claimed.header("location").unwrap().starts_with("/v2/queues/q/claims/"));
}

#[tokio::test]
async fn conditional_headers_are_ignored() {
    let client = TestApp::shared().client();
    client.create_queue("q", &json!({})).await;
    for path in ["/", "/v2/", "/v2/queues", "/v2/queues/q", "/v2/queues/q/messages"] {
        let call = get(path)
            .header("if-none-match", "*")
            .header("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT");
        let response = client.send(call).await;
        assert!(matches!(response.status, 200 | 300), "{path}: {}", response.status);
        assert_eq!(response.header("etag"), None, "{path}");
        assert_eq!(response.header("last-modified"), None, "{path}");
    }
}

#[tokio::test]
async fn cors_headers_are_absent_by_default() {
    let client = TestApp::shared().client();
    let responses = [
        client.send(get("/v2/queues").header("origin", "http://app.example")).await,
        client
            .send(
                call("OPTIONS", "/v2/queues")
                    .header("origin", "http://app.example")
                    .header("access-control-request-method", "GET"),
            )
            .await,
    ];
    for response in responses {
        let response = response.expect(200, "an origin");
        let cors = |name: &str| name.starts_with("access-control-");
        assert!(!response.headers.keys().any(|name| cors(name.as_str())), "{:?}", response.headers);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_ignored() {
    let client = TestApp::shared().client();
    let chunked = |line| head(&client, line, "Transfer-Encoding: chunked\r\n");
    let chunks = "18\r\n{\"_default_message_ttl\":\r\n4\r\n 77}\r\n0\r\n\r\n";
    let put = chunked("PUT /v2/queues/chunked") + chunks;
    let created = connect_and_send(&client, put).await.response().await;
    created.expect("a response").expect(201, "an optional body");
    let shown = client.get("/v2/queues/chunked").await.json();
    assert_eq!(shown["_default_message_ttl"], 3600, "the body was not read");
    let post = chunked("POST /v2/queues/chunked/messages") + "2\r\n{}\r\n0\r\n\r\n";
    let refused = connect_and_send(&client, post).await.response().await.expect("a response");
    refused.expect_error(400, "Invalid request body", "a required body");
}

#[tokio::test]
async fn head_is_supported_only_for_ping() {
    let app = TestApp::shared();
    let client = app.client();
    for path in ["/v2/", "/v2/queues", "/v2/queues/q", "/v2/queues/q/messages"] {
        assert_eq!(client.send(call("HEAD", path)).await.status, 405, "{path}");
    }
    assert_eq!(Client::new(app.address()).send(call("HEAD", "/")).await.status, 405, "the root");
    assert_eq!(client.send(call("HEAD", "/nothing")).await.status, 404, "no route");
}
