//! A resource: its path and, for each method, the handler and the OpenAPI operation.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, Handler, Responder, Route,
    http::Method,
    web::{self, ServiceConfig},
};
use utoipa::openapi::path::Operation;

use crate::{
    config::Config,
    error::ApiError,
    extract::{AcceptsJson, Caller, InQueue},
    metrics::RouteLabel,
};

/// The checks that a resource makes of every request, whatever its method.
#[derive(Debug, Clone, Copy)]
pub(super) enum Requires {
    Nothing,
    Accept,
    Caller,
    Queue,
}

/// Builds the OpenAPI operation of a method.
pub(crate) type Describe = fn(&Config) -> Operation;

/// The methods that are served at a path.
pub(super) struct Resource {
    path: &'static str,
    requires: Requires,
    methods: Vec<(Method, Route, Describe)>,
}

impl Resource {
    pub(super) const fn new(path: &'static str, requires: Requires) -> Self {
        Self { path, requires, methods: Vec::new() }
    }

    /// Adds a method with its handler and its OpenAPI operation.
    pub(super) fn on<F, Args>(mut self, method: Method, handler: F, describe: Describe) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = web::method(method.clone()).to(handler);
        self.methods.push((method, route, describe));
        self
    }

    /// Returns the OpenAPI operation of each method.
    pub(super) fn documented(
        self,
        config: &Config,
    ) -> impl Iterator<Item = (&'static str, Method, Operation)> {
        let path = self.path;
        self.methods.into_iter().map(move |(method, _, describe)| (path, method, describe(config)))
    }

    /// Registers the methods. Other methods are refused after the checks of the resource.
    pub(super) fn register(self, app: &mut ServiceConfig) {
        let allow = self.allow();
        let refuse = move || refused(ApiError::Method(allow));
        let pattern = self.path.replace('}', ":[^/]*}");
        let mut resource = web::resource(pattern).app_data(RouteLabel(self.path));
        for (_, route, _) in self.methods {
            resource = resource.route(route);
        }
        app.service(match self.requires {
            Requires::Nothing => resource.default_service(web::to(refuse)),
            Requires::Accept => resource.default_service(web::to(move |_: AcceptsJson| refuse())),
            Requires::Caller => resource.default_service(web::to(move |_: Caller| refuse())),
            Requires::Queue => resource.default_service(web::to(move |_: InQueue| refuse())),
        });
    }

    /// Returns the methods, as `Allow` lists them.
    fn allow(&self) -> &'static str {
        let mut names: Vec<&str> = self.methods.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.push("OPTIONS");
        // Leaked once per worker at start, so that an error can refer to it.
        Box::leak(names.join(", ").into_boxed_str())
    }
}

/// Returns the response of a handler that refuses every request.
pub(super) fn refused(error: ApiError) -> Ready<Result<String, ApiError>> {
    ready(Err(error))
}
