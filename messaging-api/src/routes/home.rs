//! `/v2/`: the home document, from which clients discover the resources.

use std::sync::LazyLock;

use actix_web::{HttpResponse, http::header, web::Data};
use serde_json::{Map, Value, json};

use crate::{config::Config, extract::Caller};

/// A resource: its relation, its URI template, the parameters whose names differ from those in the
/// template, its methods, and whether it takes a JSON body.
struct Entry(
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    bool,
);

const RESOURCES: &[Entry] = &[
    Entry(
        "queues",
        "/v2/queues{?marker,limit,detailed}",
        &[("limit", "queue_limit")],
        &["GET"],
        false,
    ),
    Entry("queue", "/v2/queues/{queue_name}", &[], &["GET", "PUT", "DELETE", "PATCH"], false),
    Entry("queue_stats", "/v2/queues/{queue_name}/stats", &[], &["GET"], false),
    Entry("queue_share", "/v2/queues/{queue_name}/share", &[], &["POST"], true),
    Entry("queue_purge", "/v2/queues/{queue_name}/purge", &[], &["POST"], true),
    Entry(
        "messages",
        "/v2/queues/{queue_name}/messages{?marker,limit,echo,include_claimed}",
        &[("limit", "messages_limit")],
        &["GET"],
        false,
    ),
    Entry("post_messages", "/v2/queues/{queue_name}/messages", &[], &["POST"], true),
    Entry("messages_delete", "/v2/queues/{queue_name}/messages{?ids,pop}", &[], &["DELETE"], false),
    Entry(
        "message_delete",
        "/v2/queues/{queue_name}/messages/{message_id}{?claim}",
        &[("claim", "claim_id")],
        &["DELETE"],
        false,
    ),
    Entry("message_get", "/v2/queues/{queue_name}/messages/{message_id}", &[], &["GET"], false),
    Entry("claim", "/v2/queues/{queue_name}/claims/{claim_id}", &[], &["GET"], false),
    Entry(
        "post_claim",
        "/v2/queues/{queue_name}/claims{?limit}",
        &[("limit", "claim_limit")],
        &["POST"],
        true,
    ),
    Entry("patch_claim", "/v2/queues/{queue_name}/claims/{claim_id}", &[], &["PATCH"], true),
    Entry("delete_claim", "/v2/queues/{queue_name}/claims/{claim_id}", &[], &["DELETE"], false),
    Entry(
        "subscriptions_get",
        "/v2/queues/{queue_name}/subscriptions{?marker,limit}",
        &[("limit", "subscription_limit")],
        &["GET"],
        false,
    ),
    Entry(
        "subscriptions_post",
        "/v2/queues/{queue_name}/subscriptions",
        &[("limit", "subscription_limit")],
        &["POST"],
        true,
    ),
    Entry(
        "subscription",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[],
        &["GET", "DELETE"],
        false,
    ),
    Entry(
        "subscription_patch",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[],
        &["PATCH"],
        true,
    ),
    Entry("ping", "/v2/ping", &[], &["GET"], false),
];

const ADMIN_RESOURCES: &[Entry] = &[
    Entry(
        "pools",
        "/v2/pools{?detailed,limit,marker}",
        &[("limit", "pool_limit")],
        &["GET"],
        false,
    ),
    Entry("pool", "/v2/pools/{pool_name}", &[], &["GET", "PUT", "PATCH", "DELETE"], false),
    Entry(
        "flavors",
        "/v2/flavors{?detailed,limit,marker}",
        &[("limit", "flavor_limit")],
        &["GET"],
        false,
    ),
    Entry("flavor", "/v2/flavors/{flavor_name}", &[], &["GET", "PUT", "PATCH", "DELETE"], false),
];

static HOME: LazyLock<String> = LazyLock::new(|| document(false));
static ADMIN_HOME: LazyLock<String> = LazyLock::new(|| document(true));

/// `GET /v2/`: 200 with the home document.
pub(super) async fn home(_: Caller, config: Data<Config>) -> HttpResponse {
    let document: &'static str = if config.admin.enabled { &ADMIN_HOME } else { &HOME };
    HttpResponse::Ok()
        .content_type("application/json-home")
        .insert_header((header::CACHE_CONTROL, "max-age=86400"))
        .body(document)
}

fn document(admin: bool) -> String {
    let mut resources = Map::new();
    let entries = RESOURCES.iter().chain(if admin { ADMIN_RESOURCES } else { &[] });
    for entry in entries {
        resources.insert(format!("rel/{}", entry.0), describe(entry));
    }
    if admin {
        let hints = hints(&["GET"], false);
        resources.insert("rel/health".into(), json!({"href": "/v2/health", "hints": hints}));
    }
    json!({ "resources": resources }).to_string()
}

fn describe(Entry(_, template, renamed, allow, takes_json): &Entry) -> Value {
    let mut resource = Map::new();
    resource.insert("href-template".into(), (*template).into());
    let names = template
        .split('{')
        .skip(1)
        .filter_map(|part| part.split('}').next())
        .flat_map(|names| names.trim_start_matches('?').split(','));
    let mut variables: Map<String, Value> =
        names.map(|name| (name.to_owned(), format!("param/{name}").into())).collect();
    for (name, parameter) in *renamed {
        variables.insert((*name).to_owned(), format!("param/{parameter}").into());
    }
    if !variables.is_empty() {
        resource.insert("href-vars".into(), variables.into());
    }
    resource.insert("hints".into(), hints(allow, *takes_json));
    resource.into()
}

fn hints(allow: &[&str], takes_json: bool) -> Value {
    let mut hints = json!({"allow": allow, "formats": {"application/json": {}}});
    if takes_json {
        hints["accept-post"] = json!(["application/json"]);
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_a_template_is_documented() {
        let document: Value = serde_json::from_str(&HOME).unwrap();
        assert_eq!(
            document["resources"]["rel/message_delete"],
            json!({
                "href-template": "/v2/queues/{queue_name}/messages/{message_id}{?claim}",
                "href-vars": {
                    "queue_name": "param/queue_name",
                    "message_id": "param/message_id",
                    "claim": "param/claim_id",
                },
                "hints": {"allow": ["DELETE"], "formats": {"application/json": {}}},
            })
        );
        assert!(document["resources"]["rel/ping"].get("href-vars").is_none());
    }
}
