//! The OpenAPI document of the API, and the page that shows it.
//!
//! `routes.rs` names for every method its handler and, beside it, the function of one of these
//! modules that documents its parameters and responses. The document is built by code, not derived
//! from types, because its limits are those of the configuration.

pub(crate) mod claims;
mod components;
pub(crate) mod groups;
pub(crate) mod messages;
mod page;
pub(crate) mod queues;
mod schemas;
pub(crate) mod service;
mod types;

use actix_web::http::Method;
use serde_json::Value;
use utoipa::openapi::{
    ComponentsBuilder, HttpMethod, Info, License, OpenApiBuilder, PathItem, PathsBuilder, Tag,
    path::Operation,
};

use crate::config::Config;

pub(crate) use page::{NONCE, page};
pub(crate) use queues::PATCH_TYPE;

const DESCRIPTION: &str = "A messaging service with the OpenStack Zaqar v2 API.

Every request must have the headers `Client-ID` and `X-Project-ID`, except those for the versions \
and for this document. Every response has the header `x-openstack-request-id`, which identifies the \
request in the log. Every resource responds to `OPTIONS` with 200 and an empty body, and to a method \
that it does not support with 405 and `Allow`.

An error is an object with a title and usually a description, in XML if the client prefers it. \
Unknown keys of a body are ignored, except in metadata, where they are stored. If a parameter is \
repeated, its last value is used, unless the parameter is a list. A parameter without a value is \
ignored.";

/// The tags, in the order of the page.
const TAGS: [(&str, &str); 5] = [
    ("messages", "Post, list, read and delete messages."),
    ("claims", "Reserve messages for a time, during which no other consumer receives them."),
    ("groups", "Consume a queue by several groups, each with its own delivery state."),
    ("queues", "Create queues, set their metadata, count, purge and redrive their messages."),
    ("service", "The versions, the state and the description of the service."),
];

/// Builds the OpenAPI document.
pub(crate) fn document(
    config: &Config,
    operations: impl Iterator<Item = (&'static str, Method, Operation)>,
) -> Value {
    let mut paths = PathsBuilder::new();
    for (path, method, operation) in operations {
        paths = paths.path(path, PathItem::new(name(&method), operation));
    }
    let mut info = Info::new("Chapar", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_owned());
    let mut license = License::new(env!("CARGO_PKG_LICENSE"));
    license.identifier = Some(env!("CARGO_PKG_LICENSE").to_owned());
    info.license = Some(license);
    let tags = TAGS.map(|(name, text)| {
        let mut tag = Tag::new(name);
        tag.description = Some(text.to_owned());
        tag
    });
    let schemas = schemas::add(ComponentsBuilder::new(), config);
    let schemas = groups::schemas(schemas, &config.limits);
    let components = components::add(schemas, config);
    let document = OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components.build()))
        .build();
    serde_json::to_value(document)
        .expect("the document consists of objects, arrays, texts and numbers")
}

fn name(method: &Method) -> HttpMethod {
    match *method {
        Method::DELETE => HttpMethod::Delete,
        Method::GET => HttpMethod::Get,
        Method::HEAD => HttpMethod::Head,
        Method::PATCH => HttpMethod::Patch,
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        _ => unreachable!("no resource serves {method}"),
    }
}
