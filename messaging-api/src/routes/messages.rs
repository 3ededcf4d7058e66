//! `/v2/queues/{queue}/messages` and the paths below.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use serde_json::Value;

use super::{
    links::NextLink,
    post::deliver_at,
    queues::path,
    render::{self, Shape},
};
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue, LongPoll, Query, segment},
    services::{Delayed, Listing, PopOrIds, Services},
};

/// `GET …/messages`: 200 with a page of messages, or with the messages that `ids` names.
pub(super) async fn list(
    queue: InQueue,
    query: Query,
    long_poll: LongPoll,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    if let Some(ids) = query.list("ids") {
        return get_many(&queue, ids, &services).await;
    }
    let limit = query.integer("limit")?;
    let marker = query.text("marker");
    let echo = query.flag("echo")?;
    let include_claimed = query.flag("include_claimed")?;
    let include_delayed = query.flag("include_delayed")?;
    let scheduled = query.flag("scheduled")?;
    let budget = long_poll.budget(&query)?;
    let listing = Listing {
        marker: marker.map(ToOwned::to_owned),
        limit,
        echo: echo.unwrap_or(false),
        include_claimed: include_claimed.unwrap_or(false),
        delayed: match (scheduled, include_delayed) {
            (Some(true), _) => Delayed::Alone,
            (_, Some(true)) => Delayed::Included,
            _ => Delayed::Hidden,
        },
    };
    let (page, delays) =
        services.list_messages(&queue.key, &queue.caller.client, &listing, &budget).await?;
    let mut out = r#"{"messages":"#.to_owned();
    render::messages(&mut out, &queue.key.name, &page.items, Shape::Linked, services.now());
    out.push_str(r#","links":["#);
    if let Some(last) = page.items.last() {
        let href = NextLink::default()
            .with("marker", marker)
            .with("limit", limit)
            .with("echo", echo)
            .with("include_claimed", include_claimed)
            .with("include_delayed", if delays { include_delayed } else { Some(true) })
            .with("scheduled", scheduled)
            .href(&(path(queue.key.name.as_str()) + "/messages"), &last.id.to_string());
        out.extend([r#"{"rel":"next","href":""#, &href, r#""}"#]);
    }
    out.push_str("]}");
    Ok(ok(out))
}

fn ok(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(body)
}

async fn get_many(
    queue: &InQueue,
    ids: &[String],
    services: &Services,
) -> Result<HttpResponse, ApiError> {
    let found = services.get_messages(&queue.key, ids).await?;
    if found.is_empty() {
        return Err(ApiError::NotFound("none of the messages exists".into()));
    }
    let mut out = r#"{"messages":"#.to_owned();
    render::messages(&mut out, &queue.key.name, &found, Shape::Linked, services.now());
    out.push('}');
    Ok(ok(out))
}

/// `GET …/messages/{message}`: 200 with the message.
pub(super) async fn get(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let id = segment(&request, "message");
    let found = services.get_messages(&queue.key, std::slice::from_ref(&id)).await?;
    let Some(message) = found.first() else {
        return Err(ApiError::NotFound(format!("the message {id:?} does not exist")));
    };
    let mut out = String::new();
    render::message(&mut out, &queue.key.name, message, Shape::Linked, services.now());
    Ok(ok(out))
}

/// `POST …/messages/{message}/reschedule`: 204, the message becomes visible at another time.
pub(super) async fn reschedule(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let document = body.read_object(config.limits.max_queue_metadata).await?;
    if let Some(key) = document.keys().find(|key| *key != "deliver_at") {
        return Err(ApiError::Invalid(format!("a schedule has no \"{key}\"")));
    }
    let visible_at = deliver_at(document.get("deliver_at").and_then(Value::as_str))?;
    services.reschedule_message(&queue.key, &segment(&request, "message"), visible_at).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE …/messages/{message}`: 204, also if the message does not exist.
pub(super) async fn delete(
    queue: InQueue,
    request: HttpRequest,
    query: Query,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let id = segment(&request, "message");
    services.delete_message(&queue.key, &id, query.text("claim_id")).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE …/messages`: 204 for `ids`, 200 with the messages for `pop`.
pub(super) async fn delete_many(
    queue: InQueue,
    query: Query,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let selection = PopOrIds {
        ids: query.list("ids"),
        claim_ids: query.list("claim_ids"),
        pop: query.integer("pop")?,
    };
    let Some(popped) = services.delete_messages(&queue.key, &selection).await? else {
        return Ok(HttpResponse::NoContent().finish());
    };
    let mut out = r#"{"messages":"#.to_owned();
    render::messages(&mut out, &queue.key.name, &popped, Shape::Popped, services.now());
    out.push('}');
    Ok(ok(out))
}
