//! The REST API. Each file has the handlers and the wire types of one resource.

mod claims;
mod docs;
mod groups;
mod health;
mod home;
mod links;
mod messages;
mod patch;
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

use self::resource::{Requires, Resource, refused};
use crate::{config::Config, error::ApiError, openapi as operation};

pub(crate) use docs::Documents;

/// Registers every route.
pub(crate) fn configure(app: &mut ServiceConfig, admin: bool) {
    for resource in resources(admin) {
        resource.register(app);
    }
    app.default_service(web::to(no_route));
}

/// Returns every route with its OpenAPI operation.
pub(crate) fn documented(
    config: &Config,
) -> impl Iterator<Item = (&'static str, Method, Operation)> {
    resources(config.admin.enabled).into_iter().flat_map(|resource| resource.documented(config))
}

/// Returns all resources. Routes are matched in this order, so those of the hot path come first.
fn resources(admin: bool) -> Vec<Resource> {
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const PATCH: Method = Method::PATCH;
    const POST: Method = Method::POST;
    let mut resources = vec![
        Resource::new("/v2/queues/{queue}/messages", Requires::Queue)
            .on(POST, post::post, operation::messages::post)
            .on(GET, messages::list, operation::messages::list)
            .on(DELETE, messages::delete_many, operation::messages::delete_many),
        Resource::new("/v2/queues/{queue}/claims", Requires::Queue).on(
            POST,
            claims::create,
            operation::claims::create,
        ),
        Resource::new("/v2/queues/{queue}/messages/{message}", Requires::Queue)
            .on(GET, messages::get, operation::messages::get)
            .on(DELETE, messages::delete, operation::messages::delete),
        Resource::new("/v2/queues/{queue}/claims/{claim}", Requires::Queue)
            .on(GET, claims::get, operation::claims::get)
            .on(PATCH, claims::renew, operation::claims::renew)
            .on(DELETE, claims::release, operation::claims::release),
        Resource::new("/v2/queues/{queue}", Requires::Queue)
            .on(GET, queues::get, operation::queues::get)
            .on(Method::PUT, queues::create, operation::queues::create)
            .on(PATCH, queues::update, operation::queues::patch)
            .on(DELETE, queues::delete, operation::queues::delete),
        Resource::new("/v2/queues/{queue}/stats", Requires::Queue).on(
            GET,
            stats::stats,
            operation::queues::stats,
        ),
        Resource::new("/v2/queues/{queue}/purge", Requires::Queue).on(
            POST,
            stats::purge,
            operation::queues::purge,
        ),
        Resource::new("/v2/queues/{queue}/messages/{message}/reschedule", Requires::Queue).on(
            POST,
            messages::reschedule,
            operation::messages::reschedule,
        ),
        Resource::new("/v2/queues/{queue}/redrive", Requires::Queue).on(
            POST,
            redrive::redrive,
            operation::queues::redrive,
        ),
        Resource::new("/v2/queues", Requires::Caller).on(
            GET,
            queues::list,
            operation::queues::list,
        ),
        Resource::new("/v2/ping", Requires::Caller)
            .on(GET, health::ping, operation::service::ping)
            .on(Method::HEAD, health::head, operation::service::head),
        Resource::new("/v2/", Requires::Caller).on(GET, home::home, operation::service::home),
        Resource::new("/", Requires::Accept).on(GET, root::versions, operation::service::versions),
    ];
    resources.extend(group_resources());
    if admin {
        resources.push(Resource::new("/v2/health", Requires::Caller).on(
            GET,
            health::health,
            operation::service::health,
        ));
    }
    resources.extend([
        Resource::new("/v2/openapi.json", Requires::Accept).on(
            GET,
            docs::openapi,
            operation::service::openapi,
        ),
        Resource::new("/docs", Requires::Nothing).on(GET, docs::page, operation::service::docs),
    ]);
    resources
}

/// Returns the resources of consumer groups.
fn group_resources() -> [Resource; 6] {
    const DELETE: Method = Method::DELETE;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let resource = |path| Resource::new(path, Requires::Queue);
    [
        resource("/v2/queues/{queue}/groups/{group}/claims").on(
            POST,
            groups::claim,
            operation::groups::claim,
        ),
        resource("/v2/queues/{queue}/groups/{group}/acknowledge").on(
            POST,
            groups::acknowledge,
            operation::groups::acknowledge,
        ),
        resource("/v2/queues/{queue}/groups/{group}/claims/{claim}")
            .on(GET, groups::get_claim, operation::groups::get_claim)
            .on(Method::PATCH, groups::renew, operation::groups::renew)
            .on(DELETE, groups::release, operation::groups::release),
        resource("/v2/queues/{queue}/groups/{group}/seek").on(
            POST,
            groups::seek,
            operation::groups::seek,
        ),
        resource("/v2/queues/{queue}/groups/{group}")
            .on(GET, groups::get, operation::groups::get)
            .on(Method::PUT, groups::create, operation::groups::create)
            .on(DELETE, groups::delete, operation::groups::delete),
        resource("/v2/queues/{queue}/groups").on(GET, groups::list, operation::groups::list),
    ]
}

fn no_route() -> Ready<Result<String, ApiError>> {
    refused(ApiError::NoRoute)
}
