//! The admin server: metrics, liveness and readiness, for operators.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};

use crate::{in_flight::InFlight, metrics::Metrics, services::Services};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn configure(app: &mut ServiceConfig) {
    app.route("/metrics", web::get().to(metrics))
        .route("/livez", web::get().to(live))
        .route("/readyz", web::get().to(ready));
}

async fn metrics(
    metrics: Data<Metrics>,
    services: Data<Services>,
    in_flight: Data<Arc<InFlight>>,
) -> HttpResponse {
    let text = metrics.render(in_flight.count(), services.counters());
    HttpResponse::Ok().content_type(OPENMETRICS).body(text)
}

/// `GET /livez`: 200 while the process runs.
async fn live() -> HttpResponse {
    HttpResponse::Ok().body("alive\n")
}

/// `GET /readyz`: 200 if the stores can be reached and the node is not stopping, else 503.
async fn ready(services: Data<Services>, in_flight: Data<Arc<InFlight>>) -> HttpResponse {
    if in_flight.is_stopping() {
        return HttpResponse::ServiceUnavailable().body("stopping\n");
    }
    match services.check().await {
        Ok(()) => HttpResponse::Ok().body("ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready: a store cannot be reached");
            HttpResponse::ServiceUnavailable().body("the stores do not answer\n")
        }
    }
}
