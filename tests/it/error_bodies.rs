//! Error documents in JSON and XML, by the client's preference.

use serde_json::json;
use tests::{TestApp, call, get, put};

#[tokio::test]
async fn the_title_comes_before_the_description() {
    let client = TestApp::shared().client();
    let refused = client.send(get("/v2/queues").header("client-id", "not-a-uuid")).await;
    refused.expect_error(400, "Wrong UUID value", "an invalid client id");
    let text = refused.text();
    let start = "{\"title\":\"Wrong UUID value\",\"description\":\"";
    assert!(text.replace("\": ", "\":").replace(", \"", ",\"").starts_with(start), "{text}");
    assert_eq!(refused.json().as_object().unwrap().len(), 2, "{text}");
}

#[tokio::test]
async fn routing_errors_have_no_description() {
    let client = TestApp::shared().client();
    let route = client.get("/nothing").await;
    assert_eq!(route.json(), json!({"title": "404 Not Found"}));
    let method = client.send(put("/v2/queues")).await;
    assert_eq!(method.json(), json!({"title": "405 Method Not Allowed"}));
}

#[tokio::test]
async fn a_missing_resource_has_a_description() {
    let client = TestApp::shared().client();
    for path in ["/v2/queues/q/messages/m", "/v2/queues/q/claims/c", "/v2/queues/q/messages?ids=m"]
    {
        let missing = client.get(path).await;
        missing.expect_error(404, "Not found", path);
        assert!(missing.json()["description"].is_string(), "{path}: {}", missing.text());
    }
}

#[tokio::test]
async fn json_is_the_default() {
    let client = TestApp::shared().client();
    let missing = "/v2/queues/q/messages/m";
    let accepted =
        ["*/*", "application/*", "application/json", "application/json;q=0.9, text/xml;q=0.1"];
    for accept in accepted {
        let response = client.send(get(missing).header("accept", accept)).await;
        response.expect_error(404, "Not found", accept);
    }
}

#[tokio::test]
async fn xml_is_sent_if_preferred() {
    let client = TestApp::shared().client();
    let preferences = [
        "application/xml, application/json;q=0.5",
        "text/xml, application/json;q=0.5",
        "application/xml;q=0.9, */*;q=0.1",
    ];
    for accept in preferences {
        let response = client.send(get("/v2/queues/q/messages/m").header("accept", accept)).await;
        assert_eq!(response.status, 404, "{accept}");
        let kind = response.header("content-type").unwrap();
        assert!(kind.ends_with("/xml"), "{accept}: {kind}");
        let text = response.text();
        let start = "<error><title>Not found</title><description>";
        assert!(text.contains(start), "{accept}: {text}");
        assert!(text.trim_end().ends_with("</description></error>"), "{accept}: {text}");
        assert!(response.header("vary").unwrap().to_lowercase().contains("accept"), "{accept}");
    }
}

#[tokio::test]
async fn a_client_that_accepts_only_xml_gets_errors_in_xml() {
    let client = TestApp::shared().client();
    for accept in ["application/xml", "text/xml", "application/atom+xml"] {
        let route = client.send(get("/nothing").header("accept", accept)).await;
        assert_eq!(route.status, 404, "{accept}");
        let text = route.text();
        assert!(text.contains("<error><title>404 Not Found</title></error>"), "{accept}: {text}");
        let refused = client.send(get("/v2/queues").header("accept", accept)).await;
        assert_eq!(refused.status, 406, "{accept}");
        let text = refused.text();
        let start = "<error><title>406 Not Acceptable</title><description>";
        assert!(text.contains(start), "{accept}: {text}");
        assert!(text.contains("<rel>help</rel>"), "{accept}: the link is missing in {text}");
    }
}

#[tokio::test]
async fn xml_errors_escape_values_of_the_request() {
    let client = TestApp::shared().client();
    let call = get("/v2/queues?limit=%3Cb%3E%26%22")
        .header("accept", "application/xml, application/json;q=0.5");
    let response = client.send(call).await;
    assert_eq!(response.status, 400);
    let text = response.text();
    assert!(!text.contains("<b>") && !text.contains("&\""), "{text}");
}

#[tokio::test]
async fn a_client_that_accepts_neither_gets_no_body() {
    let client = TestApp::shared().client();
    for path in ["/nothing", "/v2/queues"] {
        let response = client.send(get(path).header("accept", "text/plain")).await;
        assert!(matches!(response.status, 404 | 406), "{path}: {}", response.status);
        assert!(response.body.is_empty(), "{path}: {}", response.text());
    }
}

#[tokio::test]
async fn a_refused_content_type_of_a_patch_names_the_right_one() {
    let client = TestApp::shared().client();
    let refused = client.send(call("PATCH", "/v2/queues/q").json(&json!([]))).await;
    refused.expect_error(415, "415 Unsupported Media Type", "no content type");
    let description = refused.json()["description"].as_str().unwrap().to_owned();
    assert!(description.contains(tests::PATCH_TYPE), "{description}");
}
