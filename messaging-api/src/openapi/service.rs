//! What is said of the service itself.

use utoipa::openapi::{ContentBuilder, Ref, path::Operation};

use super::components::{header, in_json, operation, response};
use crate::config::Config;

const TAG: &str = "service";

pub(crate) fn ping(_: &Config) -> Operation {
    operation(TAG, "ping", "Ping", "Says whether the stores answer; if not, with 503 and no body.")
        .by_caller()
        .empty("204", "They do.")
        .done()
}

pub(crate) fn head(_: &Config) -> Operation {
    operation(TAG, "ping_head", "Ping without a store", "Says that the service answers.")
        .by_caller()
        .empty("204", "It does.")
        .done()
}

pub(crate) fn health(_: &Config) -> Operation {
    operation(
        TAG,
        "get_health",
        "Try every operation",
        "Posts, claims and deletes messages in a queue of its own. For the role `admin`.",
    )
    .by_caller()
    .shared("Roles")
    .json("200", "Health", "What each operation did.")
    .fails(["403"])
    .done()
}

pub(crate) fn home(_: &Config) -> Operation {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Home"))).build();
    let home = response("The resources, of this service and of the API as such.")
        .content("application/json-home", content)
        .header("Cache-Control", cached());
    operation(TAG, "get_home", "Get the home document", "Where clients find things.")
        .by_caller()
        .answer("200", home)
        .done()
}

pub(crate) fn versions(_: &Config) -> Operation {
    operation(TAG, "get_versions", "List the versions", "The versions of the API: there is one.")
        .in_json()
        .json("300", "Versions", "The versions.")
        .done()
}

pub(crate) fn openapi(_: &Config) -> Operation {
    let description = in_json("The description, in OpenAPI 3.1.", "Description");
    operation(TAG, "get_openapi", "Get this description", "For programs.")
        .in_json()
        .answer("200", description.header("Cache-Control", cached()))
        .done()
}

pub(crate) fn docs(_: &Config) -> Operation {
    let content = ContentBuilder::new().schema(Some(super::schemas::text())).build();
    let page = response("The page, which loads nothing and runs nothing.")
        .content("text/html", content)
        .header("Cache-Control", cached());
    operation(TAG, "get_docs", "Read this description", "For people.").answer("200", page).done()
}

fn cached() -> utoipa::openapi::Header {
    header(super::schemas::text(), "For how long it may be kept.")
}
