//! `/v2/queues` and `/v2/queues/{queue}`.

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use serde_json::{Map, Value, json};
use storage_traits::{Page, catalog::MetadataFilter};

use super::{links::NextLink, patch};
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, Caller, InQueue, Query, parse_integer},
    json,
    openapi::PATCH_TYPE,
    services::{QueueListing, Services},
};

/// `GET /v2/queues`: 200 with a page of the project's queues.
pub(super) async fn list(
    caller: Caller,
    query: Query,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let marker = query.text("marker");
    let limit = query.integer("limit")?;
    let detailed = query.flag("detailed")?;
    let name = query.text("name");
    let with_count = query.flag("with_count")?;
    let listing = QueueListing {
        marker: marker.map(ToOwned::to_owned),
        limit,
        name: name.map(ToOwned::to_owned),
        metadata: query
            .others(&["marker", "limit", "detailed", "name", "with_count"])
            .map(|(key, values)| metadata_filter(key, values))
            .collect::<Result<_, _>>()?,
    };
    // A project id that exceeds the limit has no queues.
    let (page, count) = match &caller.project {
        Some(project) => {
            let page = services.list_queues(project, listing).await?;
            let counted = with_count == Some(true);
            (page, if counted { services.count_queues(project).await? } else { 0 })
        }
        None => (Page::empty(), 0),
    };
    let link = page.items.last().map(|(last, _)| {
        let href = NextLink::default()
            .with("marker", marker)
            .with("limit", limit)
            .with("detailed", detailed)
            .with("name", name)
            .with("with_count", with_count)
            .href("/v2/queues", last.as_str());
        json!({"rel": "next", "href": href})
    });
    let queues: Vec<Value> = page
        .items
        .into_iter()
        .map(|(name, metadata)| {
            let mut queue = json!({"name": name.as_str(), "href": path(name.as_str())});
            if detailed == Some(true) {
                queue["metadata"] = metadata.into();
            }
            queue
        })
        .collect();
    let mut body = json!({"queues": queues, "links": Vec::from_iter(link)});
    if count > 0 {
        body["count"] = count.into();
    }
    Ok(HttpResponse::Ok().json(body))
}

/// Parses a filter value: an integer if it has the form of one, else text.
fn metadata_filter(key: &str, values: &[String]) -> Result<MetadataFilter, ApiError> {
    let [value] = values else {
        return Err(ApiError::Invalid(format!("the filter \"{key}\" must have one value")));
    };
    let value = parse_integer(value).map_or_else(|| value.as_str().into(), Value::from);
    Ok(MetadataFilter { key: key.to_owned(), value })
}

/// Returns the path of a queue.
pub(super) fn path(name: &str) -> String {
    format!("/v2/queues/{name}")
}

/// `PUT /v2/queues/{queue}`: 201 if the queue is new, 204 if it exists; it is then not changed.
pub(super) async fn create(
    queue: InQueue,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let limit = config.limits.max_queue_metadata;
    if body.length() > limit {
        let text = format!("the metadata must not be larger than {limit} bytes");
        return Err(ApiError::Invalid(text));
    }
    let metadata = match body.read().await? {
        Some(bytes) => json::object(&bytes)?,
        None => Map::new(),
    };
    let new = services.create_queue(&queue.key, metadata).await?;
    let mut response = if new { HttpResponse::Created() } else { HttpResponse::NoContent() };
    response.insert_header((header::LOCATION, path(queue.key.name.as_str())));
    if new {
        response.content_type("application/json");
    }
    Ok(response.finish())
}

/// `GET /v2/queues/{queue}`: 200 with the metadata and the defaults, also for a missing queue.
pub(super) async fn get(
    queue: InQueue,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(services.queue_metadata(&queue.key).await?))
}

/// `PATCH /v2/queues/{queue}`: 200 with the new metadata.
pub(super) async fn update(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let limit = config.limits.max_queue_metadata;
    if body.length() > limit {
        let text = format!("the patch must not be larger than {limit} bytes");
        return Err(ApiError::Body(text));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != PATCH_TYPE) {
        return Err(ApiError::MediaType(format!("the content type must be {PATCH_TYPE}")));
    }
    let bytes = body.read().await?.unwrap_or_default();
    let operations = patch::parse(json::value(&bytes)?)?;
    Ok(HttpResponse::Ok().json(services.patch_queue(&queue.key, &operations).await?))
}

/// `DELETE /v2/queues/{queue}`: 204, also if the queue does not exist.
pub(super) async fn delete(
    queue: InQueue,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    services.delete_queue(&queue.key).await?;
    Ok(HttpResponse::NoContent().finish())
}
