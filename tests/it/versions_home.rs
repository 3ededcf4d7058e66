//! The version document and the home document.

use serde_json::{Value, json};
use tests::{Client, TestApp, call};

#[tokio::test]
async fn the_root_lists_the_version_without_an_identity() {
    let app = TestApp::shared();
    let versions = Client::new(app.address()).get("/").await.expect(300, "versions");
    assert_eq!(versions.header("content-type"), Some("application/json"));
    let expected = json!({"versions": [{
        "id": "2", "status": "CURRENT", "updated": "2014-9-24T04:06:47Z",
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.messaging-v2+json",
        }],
        "links": [{"href": "/v2/", "rel": "self"}],
    }]});
    assert_eq!(versions.json(), expected);
}

#[tokio::test]
async fn the_root_refuses_a_client_that_does_not_accept_json() {
    let anonymous = Client::new(TestApp::shared().address());
    let refused = anonymous.send(call("GET", "/").header("accept", "text/plain")).await;
    assert_eq!(refused.status, 406);
}

#[tokio::test]
async fn the_home_document_requires_an_identity() {
    let app = TestApp::shared();
    let anonymous = Client::new(app.address());
    anonymous.get("/v2/").await.expect_error(400, "Missing header value", "no client");
    let no_project = call("GET", "/v2/").without("x-project-id");
    let response = app.client().send(no_project).await;
    response.expect_error(400, "Project-Id Missing", "no project");
}

#[tokio::test]
async fn the_home_document_can_be_cached_for_a_day() {
    let home = TestApp::shared().client().get("/v2/").await.expect(200, "home");
    assert_eq!(home.header("content-type"), Some("application/json-home"));
    assert_eq!(home.header("cache-control"), Some("max-age=86400"));
}

#[tokio::test]
async fn the_home_document_describes_each_resource() {
    let home = TestApp::shared().client().get("/v2/").await.expect(200, "home").json();
    for resource in &RESOURCES {
        assert_eq!(home["resources"][resource.rel], resource.document(), "{}", resource.rel);
    }
}

/// Resources of later parts of the service may be missing.
#[tokio::test]
async fn the_home_document_contains_nothing_else() {
    let home = TestApp::shared().client().get("/v2/").await.expect(200, "home").json();
    assert_eq!(home.as_object().unwrap().len(), 1, "only `resources`");
    for (rel, found) in home["resources"].as_object().unwrap() {
        let known = RESOURCES.iter().chain(&LATER_RESOURCES).find(|known| known.rel == rel);
        let known = known.unwrap_or_else(|| panic!("{rel} is not in the contract"));
        assert_eq!(*found, known.document(), "{rel}");
    }
}

#[tokio::test]
async fn the_home_document_in_admin_mode_describes_health() {
    let app = TestApp::builder().set("ADMIN__ENABLED", "true").start();
    let home = app.client().get("/v2/").await.expect(200, "home").json();
    let health = json!({"href": "/v2/health", "hints": hints(&["GET"], false)});
    assert_eq!(home["resources"]["rel/health"], health);
}

/// One row of the table of resources.
struct Resource {
    rel: &'static str,
    template: &'static str,
    allow: &'static [&'static str],
    accepts_post: bool,
    /// The variables of the template and the names of their parameters.
    variables: &'static [(&'static str, &'static str)],
}

impl Resource {
    fn document(&self) -> Value {
        let mut document = json!({
            "href-template": self.template,
            "hints": hints(self.allow, self.accepts_post),
        });
        if !self.variables.is_empty() {
            let variable = |(name, param): &(&str, &str)| {
                ((*name).to_owned(), format!("param/{param}").into())
            };
            document["href-vars"] = Value::Object(self.variables.iter().map(variable).collect());
        }
        document
    }
}

fn hints(allow: &[&str], accepts_post: bool) -> Value {
    let mut hints = json!({"allow": allow, "formats": {"application/json": {}}});
    if accepts_post {
        hints["accept-post"] = json!(["application/json"]);
    }
    hints
}

const QUEUE: (&str, &str) = ("queue_name", "queue_name");
const MESSAGE: (&str, &str) = ("message_id", "message_id");
const CLAIM: (&str, &str) = ("claim_id", "claim_id");
const SUBSCRIPTION: (&str, &str) = ("subscriptions_id", "subscriptions_id");
const MARKER: (&str, &str) = ("marker", "marker");

const fn row(
    rel: &'static str,
    template: &'static str,
    allow: &'static [&'static str],
    accepts_post: bool,
    variables: &'static [(&'static str, &'static str)],
) -> Resource {
    Resource { rel, template, allow, accepts_post, variables }
}

const RESOURCES: [Resource; 14] = [
    row(
        "rel/queues",
        "/v2/queues{?marker,limit,detailed}",
        &["GET"],
        false,
        &[MARKER, ("limit", "queue_limit"), ("detailed", "detailed")],
    ),
    row(
        "rel/queue",
        "/v2/queues/{queue_name}",
        &["GET", "PUT", "DELETE", "PATCH"],
        false,
        &[QUEUE],
    ),
    row("rel/queue_stats", "/v2/queues/{queue_name}/stats", &["GET"], false, &[QUEUE]),
    row("rel/queue_purge", "/v2/queues/{queue_name}/purge", &["POST"], true, &[QUEUE]),
    row(
        "rel/messages",
        "/v2/queues/{queue_name}/messages{?marker,limit,echo,include_claimed}",
        &["GET"],
        false,
        &[
            QUEUE,
            MARKER,
            ("limit", "messages_limit"),
            ("echo", "echo"),
            ("include_claimed", "include_claimed"),
        ],
    ),
    row("rel/post_messages", "/v2/queues/{queue_name}/messages", &["POST"], true, &[QUEUE]),
    row(
        "rel/messages_delete",
        "/v2/queues/{queue_name}/messages{?ids,pop}",
        &["DELETE"],
        false,
        &[QUEUE, ("ids", "ids"), ("pop", "pop")],
    ),
    row(
        "rel/message_delete",
        "/v2/queues/{queue_name}/messages/{message_id}{?claim}",
        &["DELETE"],
        false,
        &[QUEUE, MESSAGE, ("claim", "claim_id")],
    ),
    row(
        "rel/message_get",
        "/v2/queues/{queue_name}/messages/{message_id}",
        &["GET"],
        false,
        &[QUEUE, MESSAGE],
    ),
    row("rel/claim", "/v2/queues/{queue_name}/claims/{claim_id}", &["GET"], false, &[QUEUE, CLAIM]),
    row(
        "rel/post_claim",
        "/v2/queues/{queue_name}/claims{?limit}",
        &["POST"],
        true,
        &[QUEUE, ("limit", "claim_limit")],
    ),
    row(
        "rel/patch_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &["PATCH"],
        true,
        &[QUEUE, CLAIM],
    ),
    row(
        "rel/delete_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &["DELETE"],
        false,
        &[QUEUE, CLAIM],
    ),
    row("rel/ping", "/v2/ping", &["GET"], false, &[]),
];

const LATER_RESOURCES: [Resource; 5] = [
    row("rel/queue_share", "/v2/queues/{queue_name}/share", &["POST"], true, &[QUEUE]),
    row(
        "rel/subscriptions_get",
        "/v2/queues/{queue_name}/subscriptions{?marker,limit}",
        &["GET"],
        false,
        &[QUEUE, MARKER, ("limit", "subscription_limit")],
    ),
    row(
        "rel/subscriptions_post",
        "/v2/queues/{queue_name}/subscriptions",
        &["POST"],
        true,
        &[QUEUE, ("limit", "subscription_limit")],
    ),
    row(
        "rel/subscription",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &["GET", "DELETE"],
        false,
        &[QUEUE, SUBSCRIPTION],
    ),
    row(
        "rel/subscription_patch",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &["PATCH"],
        true,
        &[QUEUE, SUBSCRIPTION],
    ),
];
