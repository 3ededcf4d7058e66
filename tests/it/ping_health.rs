//! `/v2/ping` and `/v2/health`.

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;
use tests::{Client, TestApp, call, get};

const OPERATIONS: [&str; 8] = [
    "create_queue",
    "post_messages",
    "claim_messages",
    "list_messages",
    "delete_messages",
    "delete_claim",
    "bulk_delete_messages",
    "delete_queue",
];

#[tokio::test]
async fn a_ping_returns_no_body() {
    let client = TestApp::shared().client();
    for method in ["GET", "HEAD"] {
        let pong = client.send(call(method, "/v2/ping")).await.expect(204, method);
        assert!(pong.body.is_empty(), "{method}");
        assert!(!pong.headers.contains_key(CONTENT_TYPE), "{method}");
        assert!(!pong.headers.contains_key(CONTENT_LENGTH), "{method}");
    }
}

#[tokio::test]
async fn a_ping_requires_an_identity() {
    let anonymous = Client::new(TestApp::shared().address());
    anonymous.get("/v2/ping").await.expect_error(400, "Missing header value", "GET");
    assert_eq!(anonymous.send(call("HEAD", "/v2/ping")).await.status, 400, "HEAD");
}

#[tokio::test]
async fn health_is_not_served_without_the_admin_mode() {
    let app = TestApp::shared();
    let admin = get("/v2/health").header("x-roles", "admin");
    app.client().send(admin).await.expect_error(404, "404 Not Found", "an administrator");
    let anonymous = Client::new(app.address());
    anonymous.get("/v2/health").await.expect_error(404, "404 Not Found", "no identity");
}

#[tokio::test]
async fn health_requires_the_admin_role() {
    let app = TestApp::builder().set("ADMIN__ENABLED", "true").start();
    let client = app.client();
    client.get("/v2/health").await.expect_error(403, "Not authorized", "no role");
    for roles in ["member", "administrator", "not-admin,member"] {
        let refused = client.send(get("/v2/health").header("x-roles", roles)).await;
        refused.expect_error(403, "Not authorized", roles);
    }
    for roles in ["admin", "member,admin", "member, admin"] {
        client.send(get("/v2/health").header("x-roles", roles)).await.expect(200, roles);
    }
}

#[tokio::test]
async fn health_reports_each_operation() {
    let app = TestApp::builder().set("ADMIN__ENABLED", "true").start();
    let admin = app.client().with("x-roles", "admin");
    let health = admin.get("/v2/health").await.expect(200, "health");
    assert_eq!(health.header("content-type"), Some("application/json"));
    let health = health.json();
    assert_eq!(health["storage_reachable"], true);
    let operations = health["operation_status"].as_object().unwrap();
    assert_eq!(operations.len(), OPERATIONS.len(), "{operations:?}");
    for name in OPERATIONS {
        let status = &operations[name];
        assert_eq!(status["succeeded"], true, "{name}");
        assert!(status["seconds"].is_f64(), "{name}: {status}");
        assert_eq!(status["ref"], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn health_leaves_no_queue() {
    let app = TestApp::builder().set("ADMIN__ENABLED", "true").start();
    let admin = app.client().with("x-roles", "admin");
    for _ in 0..3 {
        admin.get("/v2/health").await.expect(200, "health");
    }
    let queues = admin.get("/v2/queues?with_count=true").await.json();
    assert_eq!(queues["queues"], serde_json::json!([]));
}
