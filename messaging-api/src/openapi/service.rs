//! The operations of the service itself.

use utoipa::openapi::{ContentBuilder, Ref, path::Operation};

use super::components::{header, json_response, operation, response};
use crate::config::Config;

const TAG: &str = "service";

pub(crate) fn ping(_: &Config) -> Operation {
    operation(
        TAG,
        "ping",
        "Ping",
        "Checks that the stores can be reached. If not, the response is 503 without a body.",
    )
    .by_caller()
    .empty("204", "The stores can be reached.")
    .build()
}

pub(crate) fn head(_: &Config) -> Operation {
    operation(
        TAG,
        "ping_head",
        "Ping without a store",
        "Checks that the service responds, without a store.",
    )
    .by_caller()
    .empty("204", "The service responds.")
    .build()
}

pub(crate) fn health(_: &Config) -> Operation {
    operation(
        TAG,
        "get_health",
        "Try every operation",
        "Posts, claims and deletes messages in a temporary queue. Requires the role `admin`.",
    )
    .by_caller()
    .shared("Roles")
    .json("200", "Health", "The outcome of every operation.")
    .errors(["403"])
    .build()
}

pub(crate) fn home(_: &Config) -> Operation {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Home"))).build();
    let home =
        response("The resources of the Zaqar v2 API, whether or not this service serves them.")
            .content("application/json-home", content)
            .header("Cache-Control", cached());
    operation(
        TAG,
        "get_home",
        "Get the home document",
        "Returns the URI templates of the resources, for discovery by clients.",
    )
    .by_caller()
    .response("200", home)
    .build()
}

pub(crate) fn versions(_: &Config) -> Operation {
    operation(
        TAG,
        "get_versions",
        "List the versions",
        "Returns the versions of the API. There is one.",
    )
    .in_json()
    .json("300", "Versions", "The versions.")
    .build()
}

pub(crate) fn openapi(_: &Config) -> Operation {
    let description = json_response("The OpenAPI 3.1 document.", "Description");
    operation(TAG, "get_openapi", "Get this description", "Returns this document, for programs.")
        .in_json()
        .response("200", description.header("Cache-Control", cached()))
        .build()
}

pub(crate) fn docs(_: &Config) -> Operation {
    let content = ContentBuilder::new().schema(Some(super::types::text())).build();
    let page = response("The page. It loads no other resources and runs no scripts.")
        .content("text/html", content)
        .header("Cache-Control", cached());
    operation(
        TAG,
        "get_docs",
        "Read this description",
        "Returns this document as a page, for people.",
    )
    .response("200", page)
    .build()
}

fn cached() -> utoipa::openapi::Header {
    header(super::types::text(), "How long the response may be cached.")
}
