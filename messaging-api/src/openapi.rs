//! The description of what is served, in OpenAPI's words, and the page that shows it.
//!
//! `routes.rs` names for every method the handler and, beside it, the function of one of these
//! modules that says what the handler takes and answers. The description is built, not derived from
//! types, because its bounds are those of the configuration.

pub(crate) mod claims;
mod components;
pub(crate) mod groups;
pub(crate) mod messages;
mod page;
pub(crate) mod queues;
mod schemas;
pub(crate) mod service;

use actix_web::http::Method;
use serde_json::Value;
use utoipa::openapi::{
    ComponentsBuilder, HttpMethod, Info, License, OpenApiBuilder, PathItem, PathsBuilder, Tag,
    path::Operation,
};

use crate::config::Config;

pub(crate) use page::{NONCE, page};
pub(crate) use queues::PATCH_TYPE;

const ABOUT: &str = "A messaging service that speaks the OpenStack Zaqar v2 API.

Every request but those for the versions and for this description names a client (`Client-ID`) \
and a project (`X-Project-ID`). Every answer carries `x-openstack-request-id`, which names the \
request in the log. Every resource answers `OPTIONS` with 200 and an empty body, and a method that \
it does not serve with 405 and `Allow`.

Errors are objects with a title and, mostly, a description; a client that prefers XML gets them in \
XML. Where a body has keys that are not described they are ignored; only metadata are kept as they \
are. Of a parameter that is repeated the last value counts, unless it is a list, and one without a \
value counts as not given.";

/// The tags, in the order of the page.
const TAGS: [(&str, &str); 5] = [
    ("messages", "Post messages, look at them, delete them."),
    ("claims", "Reserve messages for a while, so that no other consumer sees them."),
    ("groups", "Read a queue by several groups of consumers, each for itself."),
    ("queues", "Make queues, set their metadata, count and purge what is in them."),
    ("service", "What the service is, and how it is."),
];

/// The whole description.
pub(crate) fn document(
    config: &Config,
    described: impl Iterator<Item = (&'static str, Method, Operation)>,
) -> Value {
    let mut paths = PathsBuilder::new();
    for (path, method, operation) in described {
        paths = paths.path(path, PathItem::new(name(&method), operation));
    }
    let mut info = Info::new("Chapar", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
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
    serde_json::to_value(document).expect("the description is made of texts and numbers")
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
