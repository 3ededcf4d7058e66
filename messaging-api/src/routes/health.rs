//! `/v2/ping` and `/v2/health`.

use actix_web::{HttpResponse, web::Data};
use serde_json::{Map, Value, json};

use crate::{error::ApiError, extract::Caller, services::Services};

/// `GET /v2/ping`: 204 if the stores can be reached, else 503, both without a body.
pub(super) async fn ping(_: Caller, services: Data<Services>) -> HttpResponse {
    match services.check().await {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(error) => {
            tracing::warn!(%error, "ping failed: a store cannot be reached");
            HttpResponse::ServiceUnavailable().insert_header(("retry-after", "1")).finish()
        }
    }
}

/// `HEAD /v2/ping`: 204.
pub(super) async fn head(_: Caller) -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// `GET /v2/health`: 200 with the outcome of every operation, for the role `admin`.
pub(super) async fn health(
    caller: Caller,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    if !caller.roles.iter().any(|role| role == "admin") {
        return Err(ApiError::Forbidden("the health report is for the role admin".into()));
    }
    let health = services.health().await?;
    let operations: Map<String, Value> = health
        .operations
        .into_iter()
        .map(|operation| {
            let reference = operation.reference.map(|reference| reference.to_string());
            let report = json!({
                "succeeded": operation.succeeded,
                "seconds": operation.seconds,
                "ref": reference,
            });
            (operation.name.to_owned(), report)
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "storage_reachable": true,
        "operation_status": operations,
    })))
}
