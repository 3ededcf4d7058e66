//! `POST /v2/queues/{queue}/messages`: the hot path of producers.

use std::{fmt, str::FromStr};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use storage_traits::domain::{Body, InvalidName, Posted, Timestamp};

use super::render::message_path;
use crate::{
    config::Config,
    error::ApiError,
    extract::{BodyReader, InQueue},
    json,
    services::{MessageDraft, Services},
};

/// The longest `Location` in bytes, since clients and proxies refuse longer headers. It names as
/// many ids as fit; the body names all.
const MAX_LOCATION: usize = 8000;

/// `POST …/messages`: 201 with the paths of the messages, in the order of the request.
pub(super) async fn post(
    queue: InQueue,
    mut body: BodyReader,
    config: Data<Config>,
    services: Data<Services>,
) -> Result<HttpResponse, ApiError> {
    let max = config.limits.max_messages_post_size;
    let (target, limit) = body.during(max, services.post_target(&queue.key)).await?;
    if body.length() > limit {
        let text = format!("the messages must not be larger than {limit} bytes together");
        return Err(ApiError::Invalid(text));
    }
    let bytes = body.read().await?.unwrap_or_default();
    let drafts = parse(&bytes)?;
    let posted = services.post(target, &queue.caller.client, drafts).await?;

    let name = &queue.key.name;
    let mut location = format!("/v2/queues/{name}/messages?ids=");
    let mut resources = r#"{"resources":["#.to_owned();
    for (index, Posted { id, .. }) in posted.into_iter().enumerate() {
        let separator = if index > 0 { "," } else { "" };
        if index > 0 {
            resources.push(',');
        }
        if location.len() < MAX_LOCATION {
            location.extend([separator, &id.to_string()]);
        }
        resources.extend(["\"", &message_path(name, id), "\""]);
    }
    resources.push_str("]}");
    Ok(HttpResponse::Created()
        .content_type("application/json")
        .insert_header((header::LOCATION, location))
        .body(resources))
}

/// The body of a post. Unlike a derived implementation, it is deserialized from objects only, and
/// the last of repeated keys wins.
struct PostIn<'b> {
    messages: Vec<MessageIn<'b>>,
}

struct MessageIn<'b> {
    body: &'b RawValue,
    ttl: Option<&'b RawValue>,
    delay: Option<&'b RawValue>,
    deduplication_id: Option<&'b RawValue>,
    deliver_at: Option<&'b RawValue>,
    ordering_key: Option<&'b RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Messages,
    Body,
    Ttl,
    Delay,
    DeduplicationId,
    DeliverAt,
    OrderingKey,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for PostIn<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Post;
        impl<'de> Visitor<'de> for Post {
            type Value = PostIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with messages")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PostIn<'de>, A::Error> {
                let mut messages = None;
                while let Some(key) = map.next_key()? {
                    match key {
                        Field::Messages => messages = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let messages = messages.ok_or_else(|| A::Error::missing_field("messages"))?;
                Ok(PostIn { messages })
            }
        }
        deserializer.deserialize_map(Post)
    }
}

impl<'de> Deserialize<'de> for MessageIn<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Message;
        impl<'de> Visitor<'de> for Message {
            type Value = MessageIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MessageIn<'de>, A::Error> {
                let (mut body, mut ttl, mut delay) = (None, None, None);
                let (mut deduplication_id, mut deliver_at, mut ordering_key) = (None, None, None);
                while let Some(key) = map.next_key()? {
                    match key {
                        Field::Body => body = Some(map.next_value()?),
                        Field::Ttl => ttl = Some(map.next_value()?),
                        Field::Delay => delay = Some(map.next_value()?),
                        Field::DeduplicationId => deduplication_id = Some(map.next_value()?),
                        Field::DeliverAt => deliver_at = Some(map.next_value()?),
                        Field::OrderingKey => ordering_key = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let body = body.ok_or_else(|| A::Error::missing_field("body"))?;
                Ok(MessageIn { body, ttl, delay, deduplication_id, deliver_at, ordering_key })
            }
        }
        deserializer.deserialize_map(Message)
    }
}

/// Parses the messages of a request. Their bodies share the bytes of the request.
fn parse(bytes: &Bytes) -> Result<Vec<MessageDraft>, ApiError> {
    let text = json::text(bytes)?;
    let read: PostIn<'_> = match serde_json::from_str(text) {
        Ok(read) => read,
        Err(_) => diagnose(text)?,
    };
    json::post_within_bounds(text, read.messages.iter().map(|message| message.body.get()))?;
    read.messages.into_iter().map(|message| draft(bytes, &message)).collect()
}

fn draft(bytes: &Bytes, message: &MessageIn<'_>) -> Result<MessageDraft, ApiError> {
    let ttl = match message.ttl {
        None => None,
        Some(raw) => {
            Some(integer(raw).ok_or_else(|| ApiError::Body("\"ttl\" must be an integer".into()))?)
        }
    };
    Ok(MessageDraft {
        body: Body::from_json(bytes.slice_ref(message.body.get().as_bytes())),
        ttl,
        delay: message.delay.map(|raw| integer(raw).ok_or(())),
        deduplication_id: label("deduplication_id", message.deduplication_id)?,
        ordering_key: label("ordering_key", message.ordering_key)?,
        deliver_at: message.deliver_at.map(raw_deliver_at).transpose()?,
    })
}

/// Parses an id or key that the producer gives to a message.
fn label<T: FromStr<Err = InvalidName>>(
    name: &str,
    raw: Option<&RawValue>,
) -> Result<Option<T>, ApiError> {
    let Some(raw) = raw else { return Ok(None) };
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| ApiError::Body(format!("\"{name}\" must be a string")))?;
    text.parse().map(Some).map_err(|error| ApiError::Invalid(format!("\"{name}\": {error}")))
}

/// Parses a time in the form of RFC 3339.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    // The parser accepts more forms than RFC 3339.
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let fits = |text: &str, form: &str| {
        text.len() == form.len()
            && text.bytes().zip(form.bytes()).all(|(is, form)| match form {
                b'0' => is.is_ascii_digit(),
                b'+' => matches!(is, b'+' | b'-'),
                form => is.eq_ignore_ascii_case(&form),
            })
    };
    let offset = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if offset.len() == fraction.len() {
                return None;
            }
            offset
        }
    };
    if !fits(date, "0000-00-00") || !fits(time, "T00:00:00") {
        return None;
    }
    if !fits(offset, "Z") && !fits(offset, "+00:00") {
        return None;
    }
    let time = text.parse::<jiff::Timestamp>().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

fn raw_deliver_at(raw: &RawValue) -> Result<Timestamp, ApiError> {
    deliver_at(serde_json::from_str::<String>(raw.get()).ok().as_deref())
}

/// Parses the time at which a message becomes visible.
pub(super) fn deliver_at(text: Option<&str>) -> Result<Timestamp, ApiError> {
    text.and_then(rfc3339).ok_or_else(|| {
        let text = "\"deliver_at\" must be a moment such as \"2030-01-31T08:00:00Z\"";
        ApiError::Body(text.into())
    })
}

fn integer(raw: &RawValue) -> Option<i64> {
    match raw.get() {
        "true" => Some(1),
        "false" => Some(0),
        number => number.parse().ok(),
    }
}

/// Finds out what is wrong with a body that could not be deserialized.
fn diagnose(text: &str) -> Result<PostIn<'_>, ApiError> {
    let whole: &RawValue = serde_json::from_str(text).map_err(json::unparsable)?;
    json::within_bounds(whole.get())?;
    let no_messages = || ApiError::Invalid("the body must be an object with \"messages\"".into());
    let document: Fields<'_> = serde_json::from_str(text).map_err(|_| no_messages())?;
    let messages = document.get("messages").ok_or_else(no_messages)?;
    let messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| ApiError::Body("\"messages\" must be an array".into()))?;
    let messages = messages
        .into_iter()
        .map(|raw| {
            let fields: Fields<'_> = serde_json::from_str(raw.get())
                .map_err(|_| ApiError::Body("a message must be an object".into()))?;
            let body = fields
                .get("body")
                .ok_or_else(|| ApiError::Body("a message needs a \"body\"".into()))?;
            Ok(MessageIn {
                body,
                ttl: fields.get("ttl"),
                delay: fields.get("delay"),
                deduplication_id: fields.get("deduplication_id"),
                deliver_at: fields.get("deliver_at"),
                ordering_key: fields.get("ordering_key"),
            })
        })
        .collect::<Result<_, ApiError>>()?;
    Ok(PostIn { messages })
}

/// The fields of an object. The last of repeated fields wins.
#[derive(Deserialize)]
#[serde(transparent)]
struct Fields<'b>(#[serde(borrow)] std::collections::HashMap<String, &'b RawValue>);

impl<'b> Fields<'b> {
    fn get(&self, name: &str) -> Option<&'b RawValue> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(text: &'static str) -> Result<Vec<String>, ApiError> {
        let drafts = parse(&Bytes::from_static(text.as_bytes()))?;
        let text =
            |draft: MessageDraft| String::from_utf8_lossy(draft.body.as_bytes()).into_owned();
        Ok(drafts.into_iter().map(text).collect())
    }

    #[test]
    fn a_body_keeps_its_bytes() {
        let text =
            r#" {"messages" : [ {"body": {"a" :  1.0, "é":"\u00e9"} , "x": 1}, {"body":null}]} "#;
        assert_eq!(bodies(text).unwrap(), [r#"{"a" :  1.0, "é":"\u00e9"}"#, "null"]);
    }

    #[test]
    fn a_time_has_the_form_of_rfc_3339() {
        for (text, seconds) in [
            ("2026-11-22T08:00:00Z", 0),
            ("2026-11-22t08:00:00.000z", 0),
            ("2026-11-22T09:00:01.000000001+01:00", 1),
            ("2026-11-22T05:30:00-02:30", 0),
        ] {
            let expected = Timestamp::from_millis(1_795_334_400_000 + 1_000 * seconds);
            assert_eq!(rfc3339(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-11-22",
            "20261122T080000Z",
            "2026-11-22T08:00Z",
            "2026-11-22T08:00:00",
            "2026-11-22 08:00:00Z",
            "2026-11-22T08:00:00.Z",
            "2026-11-22T08:00:00+0100",
            "2026-11-22T08:00:00+01",
            "2026-11-22T08:00:00Z[Europe/Berlin]",
            "2026-13-22T08:00:00Z",
            "2026-11-31T08:00:00Z",
            "+02026-11-22T08:00:00Z",
            "2026-11-22T08:00:0é",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_of_repeated_keys_wins() {
        let text = r#"{"messages":1,"messages":[{"body":1,"body":2,"ttl":"x","ttl":60}]}"#;
        assert_eq!(bodies(text).unwrap(), ["2"]);
    }

    #[test]
    fn the_structure_decides_between_the_errors() {
        for text in ["[]", "[[{\"body\":1}]]", "{}", r#"{"message":[]}"#] {
            assert!(matches!(bodies(text), Err(ApiError::Invalid(_))), "{text}");
        }
        for text in [
            "",
            " ",
            "1",
            "{",
            "{\"messages\":[}",
            r#"{"messages":{}}"#,
            r#"{"messages":null}"#,
            r#"{"messages":[1]}"#,
            r#"{"messages":[[{"body":1}]]}"#,
            r#"{"messages":[{"ttl":60}]}"#,
            r#"{"messages":[{"body":1,"ttl":null}]}"#,
            r#"{"messages":[{"body":1,"ttl":60.0}]}"#,
            r#"{"messages":[{"body":1,"ttl":"60"}]}"#,
            r#"{"messages":[{"body":[99999999999999999999]}]}"#,
            r#"{"messages":[{"body":NaN}]}"#,
        ] {
            assert!(matches!(bodies(text), Err(ApiError::Body(_))), "{text}");
        }
    }
}
