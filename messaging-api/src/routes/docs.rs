//! `/v2/openapi.json` and `/docs`: the API description, for programs and for people.

use std::sync::OnceLock;

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use serde_json::Value;

use crate::{config::Config, extract::AcceptsJson, openapi};

/// Neither document changes while the service runs. Clients fetch them again after an upgrade.
const CACHE: &str = "max-age=300";

/// Both documents, rendered at their first request.
#[derive(Debug)]
pub(crate) struct Documents {
    build: fn(&Config) -> Value,
    description: OnceLock<Bytes>,
    page: OnceLock<String>,
}

impl Documents {
    /// Takes the function that builds the OpenAPI document.
    pub(crate) const fn new(build: fn(&Config) -> Value) -> Self {
        Self { build, description: OnceLock::new(), page: OnceLock::new() }
    }
}

/// `GET /v2/openapi.json`: 200 with the OpenAPI description.
pub(super) async fn openapi(
    _: AcceptsJson,
    config: Data<Config>,
    documents: Data<Documents>,
) -> HttpResponse {
    let render = || (documents.build)(&config).to_string().into();
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, CACHE))
        .body(documents.description.get_or_init(render).clone())
}

/// `GET /docs`: 200 with the page, which loads no resources and runs no scripts.
pub(super) async fn page(config: Data<Config>, documents: Data<Documents>) -> HttpResponse {
    let render = || openapi::page(&(documents.build)(&config));
    let page = documents.page.get_or_init(render);
    // The nonce admits the style sheet of this response and no other.
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, CACHE))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(page.replacen(openapi::NONCE, &nonce, 1))
}
