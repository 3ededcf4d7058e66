//! The methods of each route, and the responses to other methods.

use serde_json::json;
use tests::{Client, TestApp, call};

/// Each route with the methods that it serves, sorted.
pub(crate) const ROUTES: [(&str, &[&str]); 20] = [
    ("/", &["GET"]),
    ("/docs", &["GET"]),
    ("/v2/", &["GET"]),
    ("/v2/openapi.json", &["GET"]),
    ("/v2/ping", &["GET", "HEAD"]),
    ("/v2/queues", &["GET"]),
    ("/v2/queues/q", &["DELETE", "GET", "PATCH", "PUT"]),
    ("/v2/queues/q/stats", &["GET"]),
    ("/v2/queues/q/purge", &["POST"]),
    ("/v2/queues/q/redrive", &["POST"]),
    ("/v2/queues/q/messages/m/reschedule", &["POST"]),
    ("/v2/queues/q/messages", &["DELETE", "GET", "POST"]),
    ("/v2/queues/q/claims", &["POST"]),
    ("/v2/queues/q/claims/c", &["DELETE", "GET", "PATCH"]),
    ("/v2/queues/q/groups", &["GET"]),
    ("/v2/queues/q/groups/g", &["DELETE", "GET", "PUT"]),
    ("/v2/queues/q/groups/g/acknowledge", &["POST"]),
    ("/v2/queues/q/groups/g/claims", &["POST"]),
    ("/v2/queues/q/groups/g/claims/c", &["DELETE", "GET", "PATCH"]),
    ("/v2/queues/q/groups/g/seek", &["POST"]),
];

pub(crate) const MESSAGE_ROUTE: (&str, &[&str]) = ("/v2/queues/q/messages/m", &["DELETE", "GET"]);

pub(crate) const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

#[tokio::test]
async fn an_unsupported_method_is_refused_with_the_supported_ones() {
    let client = TestApp::shared().client();
    for (path, served) in ROUTES.into_iter().chain([MESSAGE_ROUTE]) {
        let allow = format!("{}, OPTIONS", served.join(", "));
        for method in METHODS.into_iter().filter(|method| !served.contains(method)) {
            let what = format!("{method} {path}");
            let refused = client.send(call(method, path)).await;
            assert_eq!(refused.header("allow"), Some(allow.as_str()), "{what}: {refused:?}");
            if method == "HEAD" {
                assert_eq!(refused.status, 405, "{what}");
                assert!(refused.body.is_empty(), "{what}");
            } else {
                refused.expect_error(405, "405 Method Not Allowed", &what);
                assert_eq!(refused.json(), json!({"title": "405 Method Not Allowed"}), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_method_is_refused() {
    let client = TestApp::shared().client();
    for method in ["TRACE", "BREW"] {
        let refused = client.send(call(method, "/v2/queues")).await;
        assert!(matches!(refused.status, 400 | 405), "{method}: {}", refused.status);
    }
}

#[tokio::test]
async fn options_are_accepted_on_every_path_without_an_identity() {
    let app = TestApp::shared();
    let anonymous = Client::new(app.address());
    for path in ["/", "/v2/", "/v2/queues", "/v2/queues/q", "/v2/nothing", "/v2/queues/b%20d"] {
        let response = anonymous.send(call("OPTIONS", path)).await.expect(200, path);
        assert!(response.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn options_list_the_methods_for_a_valid_request() {
    let app = TestApp::shared();
    let response = app.client().send(call("OPTIONS", "/v2/queues/q")).await.expect(200, "allowed");
    let allow = response.header("allow").expect("the methods");
    for method in ["DELETE", "GET", "PATCH", "PUT"] {
        assert!(allow.split(", ").any(|allowed| allowed == method), "{method} is not in {allow}");
    }
    let refused = [
        ("no client", call("OPTIONS", "/v2/queues/q").without("client-id")),
        ("no project", call("OPTIONS", "/v2/queues/q").without("x-project-id")),
        ("an invalid name", call("OPTIONS", "/v2/queues/b%20d")),
        ("no such route", call("OPTIONS", "/v2/nothing")),
    ];
    for (what, call) in refused {
        let response = app.client().send(call).await.expect(200, what);
        assert_eq!(response.header("allow"), None, "{what}");
    }
}
