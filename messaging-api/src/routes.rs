//! The REST API: one resource a file, its handlers and its wire types.

mod claims;
mod docs;
mod groups;
mod health;
mod home;
mod links;
mod messages;
mod post;
mod queues;
mod redrive;
mod render;
mod resource;
mod root;
mod stats;

use std::future::Ready;

use actix_web::{
    http::Method,
    web::{self, ServiceConfig},
};
use utoipa::openapi::path::Operation;

use self::resource::{Asks, Resource, refused};
use crate::{config::Config, error::ApiError, openapi as about};

pub(crate) use docs::Documents;
pub(crate) use queues::PATCH_TYPE;
pub(crate) use resource::Label;

/// Requests without a route.
pub(crate) const NO_ROUTE: Label = Label("none");

/// Registers every route.
pub(crate) fn configure(app: &mut ServiceConfig, admin: bool) {
    for resource in resources(admin) {
        resource.register(app);
    }
    app.default_service(web::to(no_route));
}

/// Every route with what is said of it.
pub(crate) fn described(
    config: &Config,
) -> impl Iterator<Item = (&'static str, Method, Operation)> {
    resources(config.admin.enabled).into_iter().flat_map(|resource| resource.described(config))
}

/// What is served. Routes are tried in this order: those of the hot path come first.
fn resources(admin: bool) -> Vec<Resource> {
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const PATCH: Method = Method::PATCH;
    const POST: Method = Method::POST;
    let mut resources = vec![
        Resource::new("/v2/queues/{queue}/messages", Asks::Queue)
            .on(POST, post::post, about::messages::post)
            .on(GET, messages::list, about::messages::list)
            .on(DELETE, messages::delete_many, about::messages::delete_many),
        Resource::new("/v2/queues/{queue}/claims", Asks::Queue).on(
            POST,
            claims::create,
            about::claims::create,
        ),
        Resource::new("/v2/queues/{queue}/messages/{message}", Asks::Queue)
            .on(GET, messages::get, about::messages::get)
            .on(DELETE, messages::delete, about::messages::delete),
        Resource::new("/v2/queues/{queue}/claims/{claim}", Asks::Queue)
            .on(GET, claims::get, about::claims::get)
            .on(PATCH, claims::renew, about::claims::renew)
            .on(DELETE, claims::release, about::claims::release),
        Resource::new("/v2/queues/{queue}", Asks::Queue)
            .on(GET, queues::get, about::queues::get)
            .on(Method::PUT, queues::create, about::queues::create)
            .on(PATCH, queues::patch, about::queues::patch)
            .on(DELETE, queues::delete, about::queues::delete),
        Resource::new("/v2/queues/{queue}/stats", Asks::Queue).on(
            GET,
            stats::stats,
            about::queues::stats,
        ),
        Resource::new("/v2/queues/{queue}/purge", Asks::Queue).on(
            POST,
            stats::purge,
            about::queues::purge,
        ),
        Resource::new("/v2/queues/{queue}/messages/{message}/reschedule", Asks::Queue).on(
            POST,
            messages::reschedule,
            about::messages::reschedule,
        ),
        Resource::new("/v2/queues/{queue}/redrive", Asks::Queue).on(
            POST,
            redrive::redrive,
            about::queues::redrive,
        ),
        Resource::new("/v2/queues", Asks::Caller).on(GET, queues::list, about::queues::list),
        Resource::new("/v2/ping", Asks::Caller).on(GET, health::ping, about::service::ping).on(
            Method::HEAD,
            health::head,
            about::service::head,
        ),
        Resource::new("/v2/", Asks::Caller).on(GET, home::home, about::service::home),
        Resource::new("/", Asks::Accept).on(GET, root::versions, about::service::versions),
    ];
    resources.extend(of_groups());
    if admin {
        resources.push(Resource::new("/v2/health", Asks::Caller).on(
            GET,
            health::health,
            about::service::health,
        ));
    }
    resources.extend([
        Resource::new("/v2/openapi.json", Asks::Accept).on(
            GET,
            docs::openapi,
            about::service::openapi,
        ),
        Resource::new("/docs", Asks::Nothing).on(GET, docs::page, about::service::docs),
    ]);
    resources
}

/// The resources of consumer groups.
fn of_groups() -> [Resource; 6] {
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let resource = |path| Resource::new(path, Asks::Queue);
    [
        resource("/v2/queues/{queue}/groups/{group}/claims").on(
            POST,
            groups::claim,
            about::groups::claim,
        ),
        resource("/v2/queues/{queue}/groups/{group}/acknowledge").on(
            POST,
            groups::acknowledge,
            about::groups::acknowledge,
        ),
        resource("/v2/queues/{queue}/groups/{group}/claims/{claim}")
            .on(GET, groups::get_claim, about::groups::get_claim)
            .on(Method::PATCH, groups::renew, about::groups::renew)
            .on(DELETE, groups::release, about::groups::release),
        resource("/v2/queues/{queue}/groups/{group}/seek").on(
            POST,
            groups::seek,
            about::groups::seek,
        ),
        resource("/v2/queues/{queue}/groups/{group}")
            .on(GET, groups::get, about::groups::get)
            .on(Method::PUT, groups::create, about::groups::create)
            .on(DELETE, groups::delete, about::groups::delete),
        resource("/v2/queues/{queue}/groups").on(GET, groups::list, about::groups::list),
    ]
}

fn no_route() -> Ready<Result<String, ApiError>> {
    refused(ApiError::NoRoute)
}
