//! `/v2/queues/{queue}/stats` and `/v2/queues/{queue}/purge`.

use actix_web::{HttpResponse, web::Data};
use serde_json::{Value, json};
use storage_traits::{domain::Timestamp, pool::MessagePosition};

use super::render::{age, message_path, utc};
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue},
    json,
    services::Services,
};

/// `GET …/stats`: 200 with the counts, which are zero for a missing queue.
pub(super) async fn stats(
    queue: InQueue,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let stats = services.queue_stats(&queue.key).await?;
    let now = services.now();
    let mut messages = json!({
        "claimed": stats.claimed,
        "free": stats.free,
        "total": stats.claimed + stats.free,
    });
    for (name, position) in [("oldest", stats.oldest), ("newest", stats.newest)] {
        if let Some(position) = position {
            messages[name] = position_out(&queue, position, now);
        }
    }
    Ok(HttpResponse::Ok().json(json!({ "messages": messages })))
}

fn position_out(queue: &InQueue, position: MessagePosition, now: Timestamp) -> Value {
    json!({
        "href": message_path(&queue.key.name, position.id),
        "age": age(position.posted_at, now),
        "created": utc(position.posted_at),
    })
}

/// `POST …/purge`: 204 when the messages are deleted.
pub(super) async fn purge(
    queue: InQueue,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let messages = match body.read_small(config.limits.max_queue_metadata).await? {
        Some(bytes) => purges_messages(&json::object(&bytes)?)?,
        None => true,
    };
    if messages {
        services.purge_messages(&queue.key).await?;
    }
    Ok(HttpResponse::NoContent().finish())
}

fn purges_messages(document: &serde_json::Map<String, Value>) -> Result<bool, ApiError> {
    const TEXT: &str = "\"resource_types\" must be a list of \"messages\" and \"subscriptions\"";
    let types = document
        .get("resource_types")
        .and_then(Value::as_array)
        .filter(|types| types.iter().all(|name| name == "messages" || name == "subscriptions"))
        .ok_or_else(|| ApiError::Invalid(TEXT.into()))?;
    Ok(types.iter().any(|name| name == "messages"))
}
