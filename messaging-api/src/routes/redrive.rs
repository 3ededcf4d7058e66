//! `/v2/queues/{queue}/redrive`.

use actix_web::{HttpResponse, web::Data};
use serde_json::{Map, Value, json};

use super::render::utc;
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue},
    services::Services,
};

/// `POST …/redrive`: 200 with the counts of moved and orphaned messages.
pub(super) async fn redrive(
    queue: InQueue,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let document = body.read_optional_object(config.limits.max_queue_metadata).await?;
    if let Some(key) = document.keys().find(|key| !["limit", "rate"].contains(&key.as_str())) {
        return Err(ApiError::Invalid(format!("a redrive has no \"{key}\"")));
    }
    let (limit, rate) = (integer(&document, "limit")?, integer(&document, "rate")?);
    let redriven = services.redrive(&queue.key, limit, rate).await?;
    Ok(HttpResponse::Ok().json(json!({
        "redriven": redriven.moved,
        "stranded": redriven.orphaned,
        "more": redriven.more,
        "until": utc(redriven.last_visible_at),
    })))
}

fn integer(document: &Map<String, Value>, key: &str) -> Result<Option<i64>, ApiError> {
    match document.get(key) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::Body(format!("\"{key}\" must be an integer"))),
        },
    }
}
