//! `/v2/queues/{queue}/claims` and `/v2/queues/{queue}/claims/{claim}`.

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use serde_json::{Map, Value};

use super::render::{self, Shape, age, claim_path};
use crate::{
    coerce::integer,
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue, LongPoll, Query, segment},
    services::Services,
};

/// `POST …/claims`: 201 with the claimed messages, 204 if none is claimable or, with `wait`,
/// becomes claimable in time.
pub(super) async fn create(
    queue: InQueue,
    query: Query,
    long_poll: LongPoll,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.integer("limit")?;
    let budget = long_poll.budget(&query)?;
    let document = body.read_optional_object(config.limits.max_queue_metadata).await?;
    let (ttl, grace) = terms(&document)?;
    let Some(claim) = services.create_claim(&queue.key, ttl, grace, limit, &budget).await? else {
        return Ok(HttpResponse::NoContent().finish());
    };
    let name = &queue.key.name;
    let mut out = r#"{"messages":"#.to_owned();
    render::messages(&mut out, name, &claim.messages, Shape::Linked, services.now());
    out.push('}');
    Ok(HttpResponse::Created()
        .content_type("application/json")
        .insert_header((header::LOCATION, claim_path(name, claim.id)))
        .body(out))
}

/// Reads the ttl and the grace of a claim, in seconds, as far as they are set.
pub(super) fn terms(document: &Map<String, Value>) -> Result<(Option<i64>, Option<i64>), ApiError> {
    Ok((seconds(document, "ttl")?, seconds(document, "grace")?))
}

/// Reads an integer. Clients send null to get the default.
fn seconds(document: &Map<String, Value>, key: &str) -> Result<Option<i64>, ApiError> {
    match document.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => integer(value)
            .map(Some)
            .ok_or_else(|| ApiError::Body(format!("\"{key}\" must be an integer"))),
    }
}

/// `GET …/claims/{claim}`: 200 with the claim and the messages that it still holds.
pub(super) async fn get(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let id = segment(&request, "claim");
    let Some((claim, now)) = services.get_claim(&queue.key, &id).await? else {
        return Err(ApiError::NotFound(format!("the claim {id:?} does not exist or is over")));
    };
    let name = &queue.key.name;
    let (age, ttl) = (age(claim.renewed_at, now), claim.ttl.as_secs());
    let mut out = format!(r#"{{"age":{age},"ttl":{ttl},"messages":"#);
    render::messages(&mut out, name, &claim.messages, Shape::Linked, now);
    // Paths of claims need no escaping. Writing to a String cannot fail.
    let _ = write!(out, r#","href":"{}"}}"#, claim_path(name, claim.id));
    Ok(HttpResponse::Ok().content_type("application/json").body(out))
}

/// `PATCH …/claims/{claim}`: 204, the claim is renewed.
pub(super) async fn renew(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let document = body.read_object(config.limits.max_queue_metadata).await?;
    let (ttl, grace) = terms(&document)?;
    let id = segment(&request, "claim");
    services.renew_claim(&queue.key, &id, ttl, grace).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE …/claims/{claim}`: 204, its messages are claimable.
pub(super) async fn release(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    services.release_claim(&queue.key, &segment(&request, "claim")).await?;
    Ok(HttpResponse::NoContent().finish())
}
