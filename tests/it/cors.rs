//! Cross-origin requests, if configured.

use serde_json::json;
use tests::{Response, TestApp, call, get, put};

const ORIGIN: &str = "http://app.example";

fn app() -> TestApp {
    let origins = "[\"http://app.example\", \"https://other.example:8443\"]";
    TestApp::builder().set("CORS__ALLOWED_ORIGINS", origins).start()
}

/// Returns the items of a list in a header, in lower case.
fn items(response: &Response, name: &str) -> Vec<String> {
    let value = response.header(name).unwrap_or_default().to_lowercase();
    value.split(',').map(|item| item.trim().to_owned()).collect()
}

#[tokio::test]
async fn an_allowed_origin_can_read_responses() {
    let app = app();
    let client = app.client();
    for origin in [ORIGIN, "https://other.example:8443"] {
        let response = client.send(get("/v2/queues").header("origin", origin)).await;
        let response = response.expect(200, origin);
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
        let exposed = items(&response, "access-control-expose-headers");
        for name in ["x-auth-token", "x-subject-token", "x-service-token", "x-openstack-request-id"]
        {
            assert!(exposed.contains(&name.to_owned()), "{name} is not in {exposed:?}");
        }
    }
    let refused = get("/v2/queues").header("origin", ORIGIN).without("client-id");
    let response = client.send(refused).await;
    response.expect_error(400, "Missing header value", "errors can be read, too");
    assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN));
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_succeeds() {
    let app = app();
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"] {
        let preflight = call("OPTIONS", "/v2/queues/q")
            .without("client-id")
            .without("x-project-id")
            .header("origin", ORIGIN)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "client-id, x-auth-token");
        let response = app.client().send(preflight).await.expect(200, method);
        assert!(response.body.is_empty(), "{method}");
        assert_eq!(response.header("access-control-allow-origin"), Some(ORIGIN), "{method}");
        let methods = items(&response, "access-control-allow-methods");
        assert!(methods.contains(&method.to_lowercase()), "{method} is not in {methods:?}");
        let headers = items(&response, "access-control-allow-headers");
        for name in ["client-id", "x-auth-token"] {
            assert!(headers.contains(&name.to_owned()), "{name} is not in {headers:?}");
        }
    }
}

#[tokio::test]
async fn another_origin_gets_no_cors_headers() {
    let app = app();
    for origin in
        ["http://evil.example", "https://app.example", "http://app.example.evil.example", "null"]
    {
        let calls = [
            get("/v2/queues"),
            call("OPTIONS", "/v2/queues").header("access-control-request-method", "GET"),
        ];
        for call in calls {
            let response =
                app.client().send(call.header("origin", origin)).await.expect(200, origin);
            assert_eq!(response.header("access-control-allow-origin"), None, "{origin}");
        }
    }
}

#[tokio::test]
async fn locations_are_paths() {
    let app = app();
    let created = app.client().send(put("/v2/queues/q").header("origin", ORIGIN)).await;
    assert_eq!(created.expect(201, "create").header("location"), Some("/v2/queues/q"));
    let body = json!({"messages": [{"body": 1}]});
    let posted = app.client().with("origin", ORIGIN).post("/v2/queues/q/messages", &body).await;
    assert!(posted.header("location").unwrap().starts_with("/v2/queues/q/messages?ids="));
}

#[tokio::test]
async fn requests_without_an_origin_get_no_cors_headers() {
    let app = app();
    let response = app.client().get("/v2/queues").await.expect(200, "no origin");
    assert_eq!(response.header("access-control-allow-origin"), None);
}
