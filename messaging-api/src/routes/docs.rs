//! `/v2/openapi.json` and `/docs`: what is served, for programs and for people.

use std::sync::OnceLock;

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};

use crate::{config::Config, extract::Accepted, openapi};

/// Neither changes while the service runs; a new version of it is seen soon.
const CACHE: &str = "max-age=300";

/// Both documents, rendered when they are first asked for.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    description: OnceLock<Bytes>,
    page: OnceLock<String>,
}

/// `GET /v2/openapi.json`: 200 with the OpenAPI description.
pub(super) async fn openapi(
    _: Accepted,
    config: Data<Config>,
    documents: Data<Documents>,
) -> HttpResponse {
    let render = || openapi::document(&config, super::described(&config)).to_string().into();
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, CACHE))
        .body(documents.description.get_or_init(render).clone())
}

/// `GET /docs`: 200 with the page, which loads nothing and runs nothing.
pub(super) async fn page(config: Data<Config>, documents: Data<Documents>) -> HttpResponse {
    let render = || openapi::page(&openapi::document(&config, super::described(&config)));
    let page = documents.page.get_or_init(render);
    // The style belongs to this answer, and no other would be applied.
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
