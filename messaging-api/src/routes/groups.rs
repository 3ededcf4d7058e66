//! `/v2/queues/{queue}/groups` and the paths below: consumer groups.

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use serde_json::{Map, Value, json};
use storage_traits::domain::{
    AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, Group, Message, MessageId, QueueName,
    Sequence, StartPoint, Timestamp,
};

use super::{
    claims::terms,
    links::NextLink,
    post::rfc3339,
    render::{age, utc},
};
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue, LongPoll, Query, segment},
    services::{GroupState, Services},
};

fn groups_path(queue: &QueueName) -> String {
    format!("/v2/queues/{queue}/groups")
}

fn claim_path(queue: &QueueName, group: &str, claim: ClaimId) -> String {
    format!("{}/{group}/claims/{claim}", groups_path(queue))
}

fn ok(body: impl Into<String>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(body.into())
}

/// `GET …/groups`: 200 with a page of groups.
pub(super) async fn list(
    queue: InQueue,
    query: Query,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let (limit, marker) = (query.integer("limit")?, query.text("marker"));
    let page = services.list_groups(&queue.key, marker, limit).await?;
    let name = &queue.key.name;
    let groups: Vec<_> = page.items.iter().map(|group| group_out(name, group)).collect();
    let mut links = Vec::new();
    if let Some(last) = page.items.last() {
        let link = NextLink::default().with("limit", limit);
        let href = link.href(&groups_path(name), last.name.as_str());
        links.push(json!({"rel": "next", "href": href}));
    }
    Ok(ok(json!({"groups": groups, "links": links}).to_string()))
}

fn group_out(queue: &QueueName, group: &Group) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("name".into(), group.name.as_str().into());
    out.insert("href".into(), format!("{}/{}", groups_path(queue), group.name).into());
    out.insert("created_at".into(), utc(group.created_at).into());
    out.extend(group.settings.as_map().clone());
    out
}

/// `PUT …/groups/{group}`: 201, or 204 if the group exists; it is then not changed.
pub(super) async fn create(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let mut document = body.read_optional_object(config.limits.max_queue_metadata).await?;
    let start = match document.remove("start") {
        None => StartPoint::End,
        Some(value) => start_point("start", &value)?,
    };
    let name = segment(&request, "group");
    Ok(if services.create_group(&queue.key, &name, start, document).await? {
        let path = format!("{}/{name}", groups_path(&queue.key.name));
        HttpResponse::Created().insert_header((header::LOCATION, path)).finish()
    } else {
        HttpResponse::NoContent().finish()
    })
}

/// Parses a position: `"start"`, `"end"`, `{"time": RFC 3339}` or `{"sequence": n}`.
fn start_point(key: &str, value: &Value) -> Result<StartPoint, ApiError> {
    let wrong = || {
        ApiError::Body(format!(
            "\"{key}\" must be \"start\", \"end\", {{\"time\": \"2030-01-31T08:00:00Z\"}} or \
             {{\"sequence\": 1}}"
        ))
    };
    match value {
        Value::String(text) if text == "start" => Ok(StartPoint::Start),
        Value::String(text) if text == "end" => Ok(StartPoint::End),
        Value::Object(map) if map.len() == 1 => match (map.get("time"), map.get("sequence")) {
            (Some(time), _) => {
                let time = time.as_str().and_then(rfc3339).ok_or_else(wrong)?;
                Ok(StartPoint::Time(time))
            }
            (_, Some(sequence)) => {
                let sequence = sequence.as_i64().and_then(Sequence::new);
                sequence.map(StartPoint::Sequence).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// `GET …/groups/{group}`: 200 with the group and its statistics.
pub(super) async fn get(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let name = segment(&request, "group");
    let GroupState { group, stats } = services.describe_group(&queue.key, &name).await?;
    let mut out = group_out(&queue.key.name, &group);
    out.insert("backlog".into(), stats.free.into());
    out.insert("in_flight".into(), stats.claimed.into());
    let oldest = stats.oldest.map(|oldest| age(oldest.posted_at, services.now()));
    out.insert("oldest_age".into(), oldest.into());
    // Messages per second, as the mean of the last minute.
    let rate = f64::from(u32::try_from(stats.completed_last_minute).unwrap_or(u32::MAX)) / 60.0;
    out.insert("rate".into(), ((rate * 100.0).round() / 100.0).into());
    Ok(ok(Value::Object(out).to_string()))
}

/// `DELETE …/groups/{group}`: 204, also if the group does not exist.
pub(super) async fn delete(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    services.delete_group(&queue.key, &segment(&request, "group")).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/groups/{group}/seek`: 204, the group continues from the new position.
pub(super) async fn seek(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let document = body.read_object(config.limits.max_queue_metadata).await?;
    let to = document.get("to").ok_or_else(|| ApiError::Body("\"to\" is missing".into()))?;
    let to = start_point("to", to)?;
    services.seek_group(&queue.key, &segment(&request, "group"), to).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/groups/{group}/claims`: 201 with the claimed messages, 204 if none is claimable or, with
/// `wait`, becomes claimable in time.
pub(super) async fn claim(
    queue: InQueue,
    request: HttpRequest,
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
    let name = segment(&request, "group");
    let claimed = services.claim_for_group(&queue.key, &name, ttl, grace, limit, &budget).await?;
    let Some(claim) = claimed else {
        return Ok(HttpResponse::NoContent().finish());
    };
    Ok(HttpResponse::Created()
        .content_type("application/json")
        .insert_header((header::LOCATION, claim_path(&queue.key.name, &name, claim.id)))
        .body(render(&claim, services.now())))
}

/// Renders a claim of a group, whose messages have more fields than those of a queue's claim.
fn render(claim: &Claim, now: Timestamp) -> String {
    let (age, ttl) = (age(claim.renewed_at, now), claim.ttl.as_secs());
    let mut out = format!(r#"{{"claim_id":"{}","ttl":{ttl},"age":{age},"messages":["#, claim.id);
    for (index, message) in claim.messages.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        render_message(&mut out, message, now);
    }
    out.push_str("]}");
    out
}

fn render_message(out: &mut String, message: &Message, now: Timestamp) {
    let Message { id, ttl, claim_count, .. } = message;
    let (ttl, age, sequence) = (ttl.as_secs(), age(message.posted_at, now), id.sequence.get());
    let key = message.ordering_key.as_ref().filter(|key| !key.as_str().is_empty());
    let key = key.map_or(Value::Null, |key| key.as_str().into());
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"id":"{id}","sequence":{sequence},"claim_count":{claim_count},"ordering_key":{key},"ttl":{ttl},"age":{age},"body":"#
    );
    // A body is checked to be JSON, hence UTF-8, when it is posted.
    out.push_str(std::str::from_utf8(message.body.as_bytes()).unwrap_or("null"));
    if let Some(checksum) = &message.checksum {
        let _ = write!(out, r#","checksum":"{checksum}""#);
    }
    out.push('}');
}

/// `GET …/groups/{group}/claims/{claim}`: 200 with the claim and the messages that it still holds.
pub(super) async fn get_claim(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let (name, id) = (segment(&request, "group"), segment(&request, "claim"));
    let Some((claim, now)) = services.get_group_claim(&queue.key, &name, &id).await? else {
        return Err(ApiError::NotFound(format!("the claim {id:?} does not exist or is over")));
    };
    Ok(ok(render(&claim, now)))
}

/// `PATCH …/groups/{group}/claims/{claim}`: 204, the claim is renewed.
pub(super) async fn renew(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let document = body.read_object(config.limits.max_queue_metadata).await?;
    let (ttl, grace) = terms(&document)?;
    let (name, id) = (segment(&request, "group"), segment(&request, "claim"));
    services.renew_group_claim(&queue.key, &name, &id, ttl, grace).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE …/groups/{group}/claims/{claim}`: 204, its messages are claimable.
pub(super) async fn release(
    queue: InQueue,
    request: HttpRequest,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let (name, id) = (segment(&request, "group"), segment(&request, "claim"));
    services.release_group_claim(&queue.key, &name, &id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/groups/{group}/acknowledge`: 200 with the result of each message.
pub(super) async fn acknowledge(
    queue: InQueue,
    request: HttpRequest,
    body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let limits = &config.limits;
    let document = body.read_object(limits.max_queue_metadata).await?;
    let claim = document.get("claim_id").and_then(Value::as_str);
    let claim = claim.ok_or_else(|| ApiError::Body("\"claim_id\" must be a string".into()))?;
    let max = limits.max_messages_per_claim_or_pop as usize;
    let mut items = Vec::new();
    for item in array(&document, "acknowledged", max)? {
        let id = item.as_str().ok_or_else(|| {
            ApiError::Body("\"acknowledged\" must hold the ids of messages".into())
        })?;
        items.push((id, AckOutcome::Ack));
    }
    for item in array(&document, "failed", max)? {
        items.push(failure(item, limits.max_claim_ttl)?);
    }
    // A malformed id is reported like one that the claim does not hold.
    let parse = |(id, outcome): &(&str, AckOutcome)| {
        Some(Acknowledgement { id: id.parse::<MessageId>().ok()?, outcome: *outcome })
    };
    let acknowledgements: Vec<_> = items.iter().filter_map(parse).collect();
    let name = segment(&request, "group");
    let results = services.acknowledge(&queue.key, &name, claim, &acknowledgements).await?;
    let mut results = results.into_iter();
    let out: Vec<_> = items
        .iter()
        .map(|one| {
            let result = parse(one).and_then(|_| results.next());
            let result = match (result, one.1) {
                (Some(AckResult::Applied), AckOutcome::Ack) => "acknowledged",
                (Some(AckResult::Applied), AckOutcome::Nack { .. }) => "failed",
                _ => "not_held",
            };
            json!({"id": one.0, "result": result})
        })
        .collect();
    Ok(ok(json!({"results": out}).to_string()))
}

fn array<'d>(
    document: &'d Map<String, Value>,
    key: &str,
    max: usize,
) -> Result<&'d [Value], ApiError> {
    match document.get(key) {
        None => Ok(&[]),
        Some(Value::Array(items)) if items.len() <= max => Ok(items),
        Some(Value::Array(_)) => {
            Err(ApiError::Invalid(format!("\"{key}\" must name at most {max} messages")))
        }
        Some(_) => Err(ApiError::Body(format!("\"{key}\" must be an array"))),
    }
}

/// Parses a failed message: `{"id": …, "delay": seconds?}`.
fn failure(item: &Value, max_delay: i64) -> Result<(&str, AckOutcome), ApiError> {
    let wrong = || ApiError::Body("\"failed\" must hold objects with an \"id\"".into());
    let item = item.as_object().ok_or_else(wrong)?;
    let id = item.get("id").and_then(Value::as_str).ok_or_else(wrong)?;
    let delay = match item.get("delay") {
        None | Some(Value::Null) => 0,
        Some(delay) => {
            delay.as_i64().ok_or_else(|| ApiError::Body("\"delay\" must be an integer".into()))?
        }
    };
    if !(0..=max_delay).contains(&delay) {
        return Err(ApiError::Invalid(format!("\"delay\" must be 0 to {max_delay} seconds")));
    }
    let delay = std::time::Duration::from_secs(delay.unsigned_abs());
    Ok((id, AckOutcome::Nack { delay }))
}
