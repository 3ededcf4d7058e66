//! The REST API: one resource a file, its handlers and its wire types.

mod claims;
mod groups;
mod health;
mod home;
mod links;
mod messages;
mod post;
mod queues;
mod render;
mod root;
mod stats;

use std::future::{Ready, ready};

use actix_web::{
    Resource,
    web::{self, ServiceConfig},
};

use crate::{
    error::ApiError,
    extract::{Accepted, Caller, InQueue},
};

/// What a request is counted under: the path's pattern, of which there are few.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route(pub &'static str);

/// Requests without a route.
pub(crate) const NO_ROUTE: Route = Route("none");

/// What a route asks of every request, whatever its method.
#[derive(Clone, Copy)]
enum Asks {
    Accept,
    Caller,
    Queue,
}

/// Registers every route.
pub(crate) fn configure(app: &mut ServiceConfig, admin: bool) {
    // Routes are tried in this order: those of the hot path come first.
    app.service(
        resource("/v2/queues/{queue:[^/]*}/messages", "DELETE, GET, POST, OPTIONS", Asks::Queue)
            .route(web::post().to(post::post))
            .route(web::get().to(messages::list))
            .route(web::delete().to(messages::delete_many)),
    )
    .service(
        resource("/v2/queues/{queue:[^/]*}/claims", "POST, OPTIONS", Asks::Queue)
            .route(web::post().to(claims::create)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/messages/{message:[^/]*}",
            "DELETE, GET, OPTIONS",
            Asks::Queue,
        )
        .route(web::get().to(messages::get))
        .route(web::delete().to(messages::delete)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/claims/{claim:[^/]*}",
            "DELETE, GET, PATCH, OPTIONS",
            Asks::Queue,
        )
        .route(web::get().to(claims::get))
        .route(web::patch().to(claims::renew))
        .route(web::delete().to(claims::release)),
    )
    .service(
        resource("/v2/queues/{queue:[^/]*}", "DELETE, GET, PATCH, PUT, OPTIONS", Asks::Queue)
            .route(web::get().to(queues::get))
            .route(web::put().to(queues::create))
            .route(web::patch().to(queues::patch))
            .route(web::delete().to(queues::delete)),
    )
    .service(
        resource("/v2/queues/{queue:[^/]*}/stats", "GET, OPTIONS", Asks::Queue)
            .route(web::get().to(stats::stats)),
    )
    .service(
        resource("/v2/queues/{queue:[^/]*}/purge", "POST, OPTIONS", Asks::Queue)
            .route(web::post().to(stats::purge)),
    )
    .service(
        resource("/v2/queues", "GET, OPTIONS", Asks::Caller).route(web::get().to(queues::list)),
    )
    .service(
        resource("/v2/ping", "GET, HEAD, OPTIONS", Asks::Caller)
            .route(web::get().to(health::ping))
            .route(web::head().to(health::head)),
    )
    .service(resource("/v2/", "GET, OPTIONS", Asks::Caller).route(web::get().to(home::home)))
    .service(resource("/", "GET, OPTIONS", Asks::Accept).route(web::get().to(root::versions)));
    if admin {
        app.service(
            resource("/v2/health", "GET, OPTIONS", Asks::Caller)
                .route(web::get().to(health::health)),
        );
    }
    configure_groups(app);
    app.default_service(web::to(no_route));
}

/// The routes of consumer groups.
fn configure_groups(app: &mut ServiceConfig) {
    app.service(
        resource(
            "/v2/queues/{queue:[^/]*}/groups/{group:[^/]*}/claims",
            "POST, OPTIONS",
            Asks::Queue,
        )
        .route(web::post().to(groups::claim)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/groups/{group:[^/]*}/acknowledge",
            "POST, OPTIONS",
            Asks::Queue,
        )
        .route(web::post().to(groups::acknowledge)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/groups/{group:[^/]*}/claims/{claim:[^/]*}",
            "DELETE, GET, PATCH, OPTIONS",
            Asks::Queue,
        )
        .route(web::get().to(groups::get_claim))
        .route(web::patch().to(groups::renew))
        .route(web::delete().to(groups::release)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/groups/{group:[^/]*}/seek",
            "POST, OPTIONS",
            Asks::Queue,
        )
        .route(web::post().to(groups::seek)),
    )
    .service(
        resource(
            "/v2/queues/{queue:[^/]*}/groups/{group:[^/]*}",
            "DELETE, GET, PUT, OPTIONS",
            Asks::Queue,
        )
        .route(web::get().to(groups::get))
        .route(web::put().to(groups::create))
        .route(web::delete().to(groups::delete)),
    )
    .service(
        resource("/v2/queues/{queue:[^/]*}/groups", "GET, OPTIONS", Asks::Queue)
            .route(web::get().to(groups::list)),
    );
}

/// A resource that refuses other methods after it has asked what it asks of all.
fn resource(path: &'static str, allow: &'static str, asks: Asks) -> Resource {
    let route = path.replace(":[^/]*", "");
    // Leaked once a worker at start: labels are compared and copied with every request.
    let route = Route(Box::leak(route.into_boxed_str()));
    let refuse = move || ApiError::Method(allow);
    let resource = web::resource(path).app_data(route);
    match asks {
        Asks::Accept => resource.default_service(web::to(move |_: Accepted| refused(refuse()))),
        Asks::Caller => resource.default_service(web::to(move |_: Caller| refused(refuse()))),
        Asks::Queue => resource.default_service(web::to(move |_: InQueue| refused(refuse()))),
    }
}

fn refused(error: ApiError) -> Ready<Result<String, ApiError>> {
    ready(Err(error))
}

fn no_route() -> Ready<Result<String, ApiError>> {
    refused(ApiError::NoRoute)
}
