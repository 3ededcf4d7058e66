//! A resource: its path, what serves its methods and, beside that, what describes them.

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

/// What a resource asks of every request, whatever its method.
#[derive(Debug, Clone, Copy)]
pub(super) enum Requires {
    Nothing,
    Accept,
    Caller,
    Queue,
}

/// Describes a method of a resource.
pub(crate) type Describe = fn(&Config) -> Operation;

/// What is served at a path.
pub(super) struct Resource {
    path: &'static str,
    requires: Requires,
    methods: Vec<(Method, Route, Describe)>,
}

impl Resource {
    pub(super) const fn new(path: &'static str, requires: Requires) -> Self {
        Self { path, requires, methods: Vec::new() }
    }

    /// Adds a method: who serves it, and what is said of it.
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

    /// What is said of each method.
    pub(super) fn documented(
        self,
        config: &Config,
    ) -> impl Iterator<Item = (&'static str, Method, Operation)> {
        let path = self.path;
        self.methods.into_iter().map(move |(method, _, describe)| (path, method, describe(config)))
    }

    /// Registers the methods, and a refusal of the others which comes after what is asked of all.
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

    /// The methods, as `Allow` lists them.
    fn allow(&self) -> &'static str {
        let mut names: Vec<&str> = self.methods.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.push("OPTIONS");
        // Leaked once a worker at start, so that an error can carry it about.
        Box::leak(names.join(", ").into_boxed_str())
    }
}

pub(super) fn refused(error: ApiError) -> Ready<Result<String, ApiError>> {
    ready(Err(error))
}
