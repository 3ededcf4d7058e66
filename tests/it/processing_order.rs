//! The checks of a request, one test for each, and their order.

use serde_json::json;
use tests::{Call, Client, Row, TestApp, call, check, connect_and_send, get, head, post, put};

const FORM: &str = "application/x-www-form-urlencoded";
const NO_ROUTE: &str = "404 Not Found";
const BAD_UUID: &str = "Wrong UUID value";
const BAD_QUEUE: &str = "Invalid queue identification";

#[tokio::test]
async fn an_unknown_route_is_reported_before_headers_are_checked() {
    let app = TestApp::shared();
    let anonymous = Client::new(app.address());
    for path in
        ["/v1/queues", "/v2", "/v2/nothing", "/v2/queues/q/nothing", "/v2/queues/q/claims/c/x"]
    {
        for method in ["GET", "POST", "DELETE"] {
            let missing = anonymous.send(call(method, path)).await;
            missing.expect_error(404, NO_ROUTE, path);
            assert_eq!(missing.json(), json!({"title": NO_ROUTE}), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_invalid_signature_is_not_found() {
    let client = TestApp::shared().client();
    let rows: [Row; 4] = [
        ("nonsense", get("/v2/queues").header("url-signature", "deadbeef"), 404, NO_ROUTE),
        (
            "before the client id is checked",
            get("/v2/queues").header("url-signature", "deadbeef").without("client-id"),
            404,
            NO_ROUTE,
        ),
        (
            "all four headers",
            get("/v2/queues/q/messages")
                .header("url-signature", &"0".repeat(64))
                .header("url-expires", "2099-01-01T00:00:00")
                .header("url-methods", "GET")
                .header("url-paths", "/v2/queues/q/messages"),
            404,
            NO_ROUTE,
        ),
        ("an empty one is ignored", get("/v2/queues").header("url-signature", ""), 200, ""),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_form_with_a_body_is_refused() {
    let client = TestApp::shared().client();
    let form = |kind: &str| put("/v2/queues/form").header("content-type", kind).body("{}");
    let rows: [Row; 5] = [
        ("a form", form(FORM), 400, "Invalid Content-Type"),
        ("in capitals", form(&FORM.to_uppercase()), 400, "Invalid Content-Type"),
        ("before the client id", form(FORM).without("client-id"), 400, "Invalid Content-Type"),
        ("no body, no form", put("/v2/queues/form").header("content-type", FORM), 201, ""),
        (
            "only the whole value counts",
            form("application/x-www-form-urlencoded; charset=utf-8"),
            204,
            "",
        ),
    ];
    check(&client, rows).await;
    let before_accept = client.send(form(FORM).header("accept", "text/plain")).await;
    assert_eq!(before_accept.status, 400, "before Accept is checked");
}

#[tokio::test]
async fn a_client_that_does_not_accept_json_is_refused() {
    let client = TestApp::shared().client();
    for path in ["/v2/", "/v2/queues", "/v2/queues/q", "/v2/queues/q/messages", "/v2/ping"] {
        let refused = client.send(get(path).header("accept", "text/plain")).await;
        assert_eq!(refused.status, 406, "{path}");
        assert!(refused.body.is_empty(), "{path}: neither JSON nor XML is acceptable");
    }
    let post = post("/v2/queues/q/messages").header("accept", "text/html").body("{}");
    assert_eq!(client.send(post).await.status, 406, "POST");
    let before_client = get("/v2/queues").header("accept", "text/plain").without("client-id");
    assert_eq!(client.send(before_client).await.status, 406, "before the client id is checked");
}

#[tokio::test]
async fn an_accept_header_with_json_is_valid() {
    let app = TestApp::shared();
    let client = app.client();
    let accepted = [
        "*/*",
        "application/*",
        "application/json",
        "text/html, application/json;q=0.5",
        "text/*, */*;q=0.1",
    ];
    for accept in accepted {
        client.send(get("/v2/queues").header("accept", accept)).await.expect(200, accept);
    }
    let mut none = connect_and_send(&client, head(&client, "GET /v2/queues", "")).await;
    none.response().await.expect("a response").expect(200, "no Accept header at all");
}

#[tokio::test]
async fn a_client_id_is_required() {
    let app = TestApp::shared();
    for path in ["/v2/", "/v2/ping", "/v2/queues", "/v2/queues/q", "/v2/queues/q/messages/m"] {
        let refused = app.client().send(get(path).without("client-id")).await;
        refused.expect_error(400, "Missing header value", path);
        let description = refused.json()["description"].as_str().unwrap().to_owned();
        assert!(description.contains("\"Client-Id\""), "{path}: {description}");
    }
}

#[tokio::test]
async fn a_client_id_is_a_uuid() {
    let client = TestApp::shared().client();
    let id = |id: &str| get("/v2/queues").header("client-id", id);
    let rows: [Row; 13] = [
        ("no dashes", id("3381af92de4a4e61a8d2dcf9bafa9427"), 200, ""),
        ("dashes", id("3381af92-de4a-4e61-a8d2-dcf9bafa9427"), 200, ""),
        ("capitals", id("3381AF92-DE4A-4E61-A8D2-DCF9BAFA9427"), 200, ""),
        ("braces", id("{3381af92-de4a-4e61-a8d2-dcf9bafa9427}"), 200, ""),
        ("a URN", id("urn:uuid:3381af92-de4a-4e61-a8d2-dcf9bafa9427"), 200, ""),
        ("any version", id("00000000000000000000000000000000"), 200, ""),
        ("a word", id("not-a-uuid"), 400, BAD_UUID),
        ("31 digits", id("3381af92de4a4e61a8d2dcf9bafa942"), 400, BAD_UUID),
        ("33 digits", id("3381af92de4a4e61a8d2dcf9bafa94271"), 400, BAD_UUID),
        ("no hex digit", id("g381af92de4a4e61a8d2dcf9bafa9427"), 400, BAD_UUID),
        ("words as long as a UUID", id("consumer-number-seventeen-of-billing"), 400, BAD_UUID),
        (
            "two of them",
            id("3381af92de4a4e61a8d2dcf9bafa9427,3381af92de4a4e61a8d2dcf9bafa9427"),
            400,
            BAD_UUID,
        ),
        ("before the project", id("not-a-uuid").without("x-project-id"), 400, BAD_UUID),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_project_is_required_except_on_the_root() {
    let client = TestApp::shared().client();
    let missing = |call: Call| call.without("x-project-id");
    let rows: [Row; 6] = [
        ("none on a collection", missing(get("/v2/queues")), 400, "Project-Id Missing"),
        ("none on a queue", missing(get("/v2/queues/q")), 400, "Project-Id Missing"),
        ("none on ping", missing(get("/v2/ping")), 400, "Project-Id Missing"),
        (
            "an empty one",
            get("/v2/queues").header("x-project-id", ""),
            400,
            "Empty project header not allowed",
        ),
        ("before the queue's name", missing(get("/v2/queues/b%20d")), 400, "Project-Id Missing"),
        ("none on the root", missing(get("/")), 300, ""),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_project_is_in_one_of_three_headers() {
    let client = TestApp::shared().client();
    let project = client.sends("x-project-id").to_owned();
    client.put("/v2/queues/mine", &json!({})).await.expect(201, "create");
    let headers = [("x-tenant-id", "x-tenant"), ("x-tenant", "x-unheard-of")];
    for (name, later) in headers {
        let list =
            get("/v2/queues").without("x-project-id").header(name, &project).header(later, "other");
        let listed = client.send(list).await.expect(200, name).json();
        assert_eq!(listed["queues"][0]["name"], "mine", "{name}");
    }
    let both = get("/v2/queues").header("x-tenant-id", "other").header("x-tenant", "other");
    let listed = client.send(both).await.expect(200, "all three").json();
    assert_eq!(listed["queues"][0]["name"], "mine", "X-Project-ID comes first");
}

#[tokio::test]
async fn a_queue_name_has_letters_digits_and_three_signs() {
    let client = TestApp::shared().client();
    let create = |name: &str| put(format!("/v2/queues/{name}"));
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    let rows: [Row; 17] = [
        ("one letter", create("a"), 201, ""),
        ("digits", create("0123456789"), 201, ""),
        ("signs", create("A-z_0.9"), 201, ""),
        ("three dots", create("..."), 201, ""),
        ("64 characters", create(&longest), 201, ""),
        ("a letter encoded twice", create("%2561bc"), 400, BAD_QUEUE),
        ("an encoded letter", create("%61bc"), 201, ""),
        ("equals the letter itself", create("abc"), 204, ""),
        ("65 characters", create(&too_long), 400, BAD_QUEUE),
        ("no name", put("/v2/queues/"), 400, BAD_QUEUE),
        ("a blank", create("b%20d"), 400, BAD_QUEUE),
        ("a line feed at the end", create("q%0A"), 400, BAD_QUEUE),
        ("a null byte", create("q%00"), 400, BAD_QUEUE),
        ("a letter beyond ASCII", create("%C3%A9t%C3%A9"), 400, BAD_QUEUE),
        ("bytes that are no text", create("%FF%FE"), 400, BAD_QUEUE),
        ("other signs", create("a*b"), 400, BAD_QUEUE),
        (
            "an invalid name before an invalid method",
            call("POST", "/v2/queues/b%20d"),
            400,
            BAD_QUEUE,
        ),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_queue_name_is_checked_on_every_route_below_it() {
    let client = TestApp::shared().client();
    let below = ["", "/stats", "/messages", "/messages/m", "/claims/c"];
    for path in below.map(|below| format!("/v2/queues/b%20d{below}")) {
        client.get(&path).await.expect_error(400, BAD_QUEUE, &path);
    }
    for path in ["purge", "messages", "claims"].map(|below| format!("/v2/queues/b%20d/{below}")) {
        client.post(&path, &json!({})).await.expect_error(400, BAD_QUEUE, &path);
    }
}

#[tokio::test]
async fn a_project_is_limited_to_256_characters_on_queue_routes() {
    let client = TestApp::shared().client();
    let (longest, too_long) = ("p".repeat(256), "p".repeat(257));
    let rows: [Row; 4] = [
        ("256, on a queue", get("/v2/queues/q").header("x-project-id", &longest), 200, ""),
        ("257, on a queue", get("/v2/queues/q").header("x-project-id", &too_long), 400, BAD_QUEUE),
        ("257, elsewhere", get("/v2/queues").header("x-project-id", &too_long), 200, ""),
        (
            "257, below a queue",
            get("/v2/queues/q/messages").header("x-project-id", &too_long),
            400,
            BAD_QUEUE,
        ),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn an_extra_spec_has_no_effect() {
    let client = TestApp::shared().client();
    let with = |call: Call| call.header("extra-spec", "zaqar-user:secret");
    let rows: [Row; 4] = [
        ("accepted", with(get("/v2/queues")), 200, ""),
        ("no client", with(get("/v2/queues")).without("client-id"), 400, "Missing header value"),
        ("no project", with(get("/v2/queues")).without("x-project-id"), 400, "Project-Id Missing"),
        ("no such route", with(get("/v2/health")), 404, NO_ROUTE),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn headers_are_checked_before_the_method() {
    let client = TestApp::shared().client();
    let rows: [Row; 3] = [
        ("no client", put("/v2/queues").without("client-id"), 400, "Missing header value"),
        ("no project", put("/v2/queues").without("x-project-id"), 400, "Project-Id Missing"),
        ("all there", put("/v2/queues"), 405, "405 Method Not Allowed"),
    ];
    check(&client, rows).await;
}
