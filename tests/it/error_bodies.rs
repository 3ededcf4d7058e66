//! The document that tells of an error, in the language that the client prefers.

use serde_json::json;
use tests::{TestApp, call, get, put};

#[tokio::test]
async fn the_title_comes_before_the_description() {
    let client = TestApp::shared().client();
    let refused = client.send(get("/v2/queues").header("client-id", "nobody")).await;
    refused.expect_error(400, "Wrong UUID value", "a bad client");
    let text = refused.text();
    let start = "{\"title\":\"Wrong UUID value\",\"description\":\"";
    assert!(text.replace("\": ", "\":").replace(", \"", ",\"").starts_with(start), "{text}");
    assert_eq!(refused.json().as_object().unwrap().len(), 2, "{text}");
}

#[tokio::test]
async fn errors_of_the_frame_have_no_description() {
    let client = TestApp::shared().client();
    let route = client.get("/nothing").await;
    assert_eq!(route.json(), json!({"title": "404 Not Found"}));
    let method = client.send(put("/v2/queues")).await;
    assert_eq!(method.json(), json!({"title": "405 Method Not Allowed"}));
}

#[tokio::test]
async fn a_missing_resource_is_described() {
    let client = TestApp::shared().client();
    for path in ["/v2/queues/q/messages/m", "/v2/queues/q/claims/c", "/v2/queues/q/messages?ids=m"]
    {
        let missing = client.get(path).await;
        missing.expect_error(404, "Not found", path);
        assert!(missing.json()["description"].is_string(), "{path}: {}", missing.text());
    }
}

#[tokio::test]
async fn json_is_sent_to_those_who_take_anything() {
    let client = TestApp::shared().client();
    let missing = "/v2/queues/q/messages/m";
    let accepted =
        ["*/*", "application/*", "application/json", "application/json;q=0.9, text/xml;q=0.1"];
    for accept in accepted {
        let answer = client.send(get(missing).header("accept", accept)).await;
        answer.expect_error(404, "Not found", accept);
    }
}

#[tokio::test]
async fn xml_is_sent_to_those_who_prefer_it() {
    let client = TestApp::shared().client();
    let preferences = [
        "application/xml, application/json;q=0.5",
        "text/xml, application/json;q=0.5",
        "application/xml;q=0.9, */*;q=0.1",
    ];
    for accept in preferences {
        let answer = client.send(get("/v2/queues/q/messages/m").header("accept", accept)).await;
        assert_eq!(answer.status, 404, "{accept}");
        let kind = answer.header("content-type").unwrap();
        assert!(kind.ends_with("/xml"), "{accept}: {kind}");
        let text = answer.text();
        let start = "<error><title>Not found</title><description>";
        assert!(text.contains(start), "{accept}: {text}");
        assert!(text.trim_end().ends_with("</description></error>"), "{accept}: {text}");
        assert!(answer.header("vary").unwrap().to_lowercase().contains("accept"), "{accept}");
    }
}

#[tokio::test]
async fn xml_without_json_is_told_before_json_is_demanded() {
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
async fn xml_is_well_formed_whatever_the_request_says() {
    let client = TestApp::shared().client();
    let call = get("/v2/queues?limit=%3Cb%3E%26%22")
        .header("accept", "application/xml, application/json;q=0.5");
    let answer = client.send(call).await;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(!text.contains("<b>") && !text.contains("&\""), "{text}");
}

#[tokio::test]
async fn nothing_is_said_to_those_who_take_neither() {
    let client = TestApp::shared().client();
    for path in ["/nothing", "/v2/queues"] {
        let answer = client.send(get(path).header("accept", "text/plain")).await;
        assert!(matches!(answer.status, 404 | 406), "{path}: {}", answer.status);
        assert!(answer.body.is_empty(), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_content_type_of_a_patch_is_named_when_it_is_refused() {
    let client = TestApp::shared().client();
    let refused = client.send(call("PATCH", "/v2/queues/q").json(&json!([]))).await;
    refused.expect_error(415, "415 Unsupported Media Type", "no content type");
    let description = refused.json()["description"].as_str().unwrap().to_owned();
    assert!(description.contains(tests::PATCH_TYPE), "{description}");
}
