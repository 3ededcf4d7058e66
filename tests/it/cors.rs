//! Pages of other origins, if they are configured.

use serde_json::json;
use tests::{Answer, TestApp, call, get, put};

const ORIGIN: &str = "http://app.example";

fn app() -> TestApp {
    let origins = "[\"http://app.example\", \"https://other.example:8443\"]";
    TestApp::builder().set("CORS__ALLOWED_ORIGINS", origins).start()
}

/// The lower-case items of a list in a header.
fn items(answer: &Answer, name: &str) -> Vec<String> {
    let value = answer.header(name).unwrap_or_default().to_lowercase();
    value.split(',').map(|item| item.trim().to_owned()).collect()
}

#[tokio::test]
async fn an_allowed_origin_may_read_answers() {
    let app = app();
    let client = app.client();
    for origin in [ORIGIN, "https://other.example:8443"] {
        let answer = client.send(get("/v2/queues").header("origin", origin)).await;
        let answer = answer.expect(200, origin);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        let exposed = items(&answer, "access-control-expose-headers");
        for name in ["x-auth-token", "x-subject-token", "x-service-token", "x-openstack-request-id"]
        {
            assert!(exposed.contains(&name.to_owned()), "{name} is not in {exposed:?}");
        }
    }
    let refused = get("/v2/queues").header("origin", ORIGIN).without("client-id");
    let answer = client.send(refused).await;
    answer.expect_error(400, "Missing header value", "errors can be read too");
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
}

#[tokio::test]
async fn an_allowed_origin_may_ask_before_it_calls() {
    let app = app();
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"] {
        let preflight = call("OPTIONS", "/v2/queues/q")
            .without("client-id")
            .without("x-project-id")
            .header("origin", ORIGIN)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "client-id, x-auth-token");
        let answer = app.client().send(preflight).await.expect(200, method);
        assert!(answer.body.is_empty(), "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN), "{method}");
        let methods = items(&answer, "access-control-allow-methods");
        assert!(methods.contains(&method.to_lowercase()), "{method} is not in {methods:?}");
        let headers = items(&answer, "access-control-allow-headers");
        for name in ["client-id", "x-auth-token"] {
            assert!(headers.contains(&name.to_owned()), "{name} is not in {headers:?}");
        }
    }
}

#[tokio::test]
async fn another_origin_is_told_nothing() {
    let app = app();
    for origin in
        ["http://evil.example", "https://app.example", "http://app.example.evil.example", "null"]
    {
        let calls = [
            get("/v2/queues"),
            call("OPTIONS", "/v2/queues").header("access-control-request-method", "GET"),
        ];
        for call in calls {
            let answer = app.client().send(call.header("origin", origin)).await.expect(200, origin);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    }
}

#[tokio::test]
async fn locations_stay_paths() {
    let app = app();
    let created = app.client().send(put("/v2/queues/q").header("origin", ORIGIN)).await;
    assert_eq!(created.expect(201, "create").header("location"), Some("/v2/queues/q"));
    let body = json!({"messages": [{"body": 1}]});
    let posted = app.client().with("origin", ORIGIN).post("/v2/queues/q/messages", &body).await;
    assert!(posted.header("location").unwrap().starts_with("/v2/queues/q/messages?ids="));
}

#[tokio::test]
async fn clients_without_an_origin_notice_nothing() {
    let app = app();
    let answer = app.client().get("/v2/queues").await.expect(200, "no origin");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}
