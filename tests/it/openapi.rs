//! The OpenAPI description and its HTML page agree with the service.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::Command;

use serde_json::Value;
use test_servers::temporary_folder;
use tests::{Client, Response, TestApp, call, get};

use crate::allowed_methods::{MESSAGE_ROUTE, METHODS, ROUTES};
use crate::clients::{assert_succeeds, python, scripts};

const DESCRIPTION: &str = "/v2/openapi.json";

/// The described methods of each path, in the form of the table in `allowed_methods`.
type Described = BTreeMap<String, BTreeSet<String>>;

async fn description(app: &TestApp) -> Value {
    Client::new(app.address()).get(DESCRIPTION).await.expect(200, DESCRIPTION).json()
}

fn described(document: &Value) -> Described {
    let paths = document["paths"].as_object().expect("paths").iter();
    paths
        .map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys().map(|name| name.to_uppercase());
            let path =
                path.replace("{queue}", "q").replace("{message}", "m").replace("{group}", "g");
            (path.replace("{claim}", "c"), methods.collect())
        })
        .collect()
}

fn with_admin() -> TestApp {
    TestApp::builder().set("ADMIN__ENABLED", "true").start()
}

#[tokio::test]
async fn the_description_needs_no_identity_and_can_be_cached() {
    let anonymous = Client::new(TestApp::shared().address());
    let response = anonymous.get(DESCRIPTION).await.expect(200, DESCRIPTION);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("max-age=300"));
    response.expect_request_id(DESCRIPTION);
    let document = response.json();
    let version = document["openapi"].as_str().expect("a version");
    assert!(version.starts_with("3.1."), "{version}");
    assert_eq!(document["info"]["title"], "Chapar");
    let other = get(DESCRIPTION).header("accept", "text/plain");
    anonymous.send(other).await.expect(406, "a client that does not accept JSON");
}

#[tokio::test]
async fn all_references_in_the_description_resolve() {
    fn references<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            _ => {}
        }
    }
    let document = description(&with_admin()).await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in &found {
        let path = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(path).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters", "responses"] {
        for name in document["components"][kind].as_object().expect("components").keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(reference.as_str()), "nothing refers to {reference}");
        }
    }
}

#[tokio::test]
async fn every_described_operation_is_served() {
    let app = with_admin();
    let client = app.client().with("x-roles", "admin");
    for (path, methods) in described(&description(&app).await) {
        for method in methods {
            let response = client.send(call(&method, &path)).await;
            let what = format!("{method} {path}: {}", response.text());
            assert_ne!(response.status, 405, "{what}");
            // The text of the error differs from that of a missing resource.
            assert!(!response.text().contains("404 Not Found"), "{what}");
        }
    }
}

#[tokio::test]
async fn exactly_the_allowed_methods_are_described() {
    let app = with_admin();
    let (client, described) = (app.client(), described(&description(&app).await));
    for (path, methods) in &described {
        let refused = METHODS.iter().find(|method| !methods.contains(**method)).expect("a method");
        let refused = client.send(call(refused, path)).await.expect(405, path);
        let allowed = refused.header("allow").expect("the methods").split(", ");
        let allowed: BTreeSet<_> = allowed.filter(|method| *method != "OPTIONS").collect();
        assert_eq!(methods.iter().map(String::as_str).collect::<BTreeSet<_>>(), allowed, "{path}");
    }
    let served = ROUTES.into_iter().chain([MESSAGE_ROUTE, ("/v2/health", &["GET"])]);
    let served: Described = served
        .map(|(path, methods)| (path.into(), methods.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(described, served);
}

#[tokio::test]
async fn health_is_described_only_in_admin_mode() {
    let document = description(TestApp::shared()).await;
    assert!(document["paths"].get("/v2/health").is_none());
    assert!(document["paths"].get("/v2/ping").is_some());
}

#[tokio::test]
async fn limits_are_those_of_the_configuration() {
    let app = TestApp::builder()
        .set("LIMITS__MAX_MESSAGES_PER_PAGE", "7")
        .set("LIMITS__MAX_CLAIM_TTL", "500")
        .start();
    let document = description(&app).await;
    let list = &document["paths"]["/v2/queues/{queue}/messages"]["get"]["parameters"];
    let limit = list.as_array().expect("parameters").iter().find(|one| one["name"] == "limit");
    let schema = &limit.expect("a limit")["schema"];
    assert_eq!((&schema["maximum"], &schema["default"]), (&7.into(), &7.into()));
    let ttl = &document["components"]["schemas"]["ClaimTerms"]["properties"]["ttl"];
    assert_eq!((&ttl["minimum"], &ttl["maximum"]), (&60.into(), &500.into()));
}

#[tokio::test]
async fn the_description_depends_on_the_configuration() {
    let document = description(TestApp::shared()).await;
    let client = &document["components"]["parameters"]["ClientId"]["schema"];
    assert_eq!(client["format"], "uuid");
    let names = |document: &Value| -> Vec<String> {
        let delete = &document["paths"]["/v2/queues/{queue}/messages"]["delete"]["parameters"];
        let names = delete.as_array().expect("parameters").iter();
        names.filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
    };
    assert_eq!(names(&document), ["ids", "pop"]);

    let app = TestApp::builder()
        .set("COMPAT__CLIENT_ID_UUID_SAFE", "off")
        .set("COMPAT__MESSAGE_DELETE_WITH_CLAIM_ID", "true")
        .start();
    let document = description(&app).await;
    let client = &document["components"]["parameters"]["ClientId"]["schema"];
    assert_eq!((&client["minLength"], &client["maxLength"]), (&10.into(), &36.into()));
    assert_eq!(names(&document), ["ids", "pop", "claim_ids"]);
}

async fn page(app: &TestApp) -> Response {
    let browser = get("/docs").header("accept", "text/html");
    Client::new(app.address()).send(browser).await.expect(200, "the page")
}

#[tokio::test]
async fn the_page_shows_each_operation_once_with_an_example() {
    let app = with_admin();
    let (page, document) = (page(&app).await, description(&app).await);
    let page = page.text();
    let operations = document["paths"].as_object().expect("paths").values();
    let operations = operations.flat_map(|item| item.as_object().expect("methods").values());
    let mut seen = HashSet::new();
    for operation in operations {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(seen.insert(id), "{id} occurs twice");
        assert_eq!(page.matches(&format!("<article id=\"{id}\">")).count(), 1, "{id}");
        assert!(
            page.contains(&format!("<a href=\"#{id}\">")),
            "{id} is not in the table of contents"
        );
    }
    assert_eq!(page.matches("<pre>curl ").count(), seen.len());
}

#[tokio::test]
async fn the_page_has_no_scripts_and_no_external_resources() {
    let app = TestApp::shared();
    let page = page(app).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("max-age=300"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("nonce-").nth(1).and_then(|rest| rest.split('\'').next());
    let nonce = nonce.expect("a nonce");
    let text = page.text();
    assert!(text.contains(&format!("<style nonce=\"{nonce}\">")), "the style is not applied");
    for word in ["<script", "<img", "<link", "@import", "url(", "src=", " style=", "onclick"] {
        assert!(!text.contains(word), "{word}");
    }
    for target in text.split("href=\"").skip(1) {
        assert!(target.starts_with(['#', '/']) && !target.starts_with("//"), "{target:.40}");
    }
    let again = self::page(app).await;
    assert_ne!(again.header("content-security-policy"), Some(policy), "a nonce is used once");
}

/// Sends valid and invalid requests generated from the description, and checks their responses.
#[test]
fn responses_match_the_description() {
    let (app, folder) = (with_admin(), scripts().join("schemathesis"));
    // Schemathesis writes its files to the current folder.
    let scratch = temporary_folder();
    let mut command = Command::new(python());
    command.args(["-m", "schemathesis.cli"]);
    command
        .current_dir(scratch.path())
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg("--config-file").arg(folder.join("schemathesis.toml"));
    command.args(["run", &format!("http://{}{DESCRIPTION}", app.address())]);
    command.args(["--seed", "1", "--max-examples", "15"]);
    command.args(["--request-timeout", "20", "--continue-on-failure"]);
    assert_succeeds(command, "the service and its description differ");
}
