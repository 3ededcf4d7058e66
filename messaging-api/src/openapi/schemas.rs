//! The schemas of request and response bodies.

use serde_json::{Value, json};
use utoipa::openapi::{
    ComponentsBuilder, ObjectBuilder, OneOfBuilder, Type,
    schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
};

use super::types::{
    amount, any, array, either, format, integer, named, object, one_of, seconds, text, typed,
};
use crate::{
    config::{Config, Limits, MIN_TTL},
    services::{DEFAULT_REDRIVEN, MAX_RATE, MAX_REDRIVEN},
};

/// All spellings of a boolean query parameter.
const FLAGS: [&str; 15] =
    ["true", "false", "True", "False", "t", "f", "yes", "no", "y", "n", "1", "0", "on", "off", ""];

/// Adds the schemas of all bodies but those of groups.
pub(super) fn add(components: ComponentsBuilder, config: &Config) -> ComponentsBuilder {
    let components = messages(components, &config.limits);
    let components = claims(components, &config.limits);
    let components = metadata(components, &config.limits);
    service(queues(components))
}

fn messages(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let new = object()
        .property("body", any().description(Some("Any JSON value. It is returned byte for byte.")))
        .property(
            "ttl",
            seconds(
                "Seconds until the message expires. The default is that of the queue, or this one.",
                MIN_TTL,
                limits.max_message_ttl,
                limits.default_message_ttl,
            ),
        )
        .property(
            "delay",
            integer(0, limits.max_message_delay).description(Some(
                "Seconds until the message becomes visible. Ignored unless the queue has a \
                 `_default_message_delay`.",
            )),
        )
        .property(
            "deliver_at",
            format("date-time").description(Some(
                "When the message becomes visible, instead of `delay`. No further ahead than the \
                 maximum ttl.",
            )),
        )
        .property(
            "deduplication_id",
            text().min_length(Some(1)).max_length(Some(128)).pattern(Some(PRINTABLE)).description(
                Some("Of messages with the same id within the deduplication window of the queue, only the first is stored."),
            ),
        )
        .property(
            "ordering_key",
            text().min_length(Some(1)).max_length(Some(128)).pattern(Some(PRINTABLE)).description(
                Some("Messages with the same key are delivered in order, to one claim at a time."),
            ),
        )
        .required("body");
    let post = object()
        .property("messages", array(named("NewMessage")).min_items(Some(1)))
        .required("messages");
    let visible_at = format("date-time").description(Some(
        "When the message becomes visible. No further ahead than the maximum ttl.",
    ));
    let reschedule = object()
        .property("deliver_at", visible_at)
        .required("deliver_at")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let posted = object()
        .property(
            "resources",
            array(text())
                .description(Some("The paths of the messages, in the order of the request.")),
        )
        .required("resources");
    let message = |object: ObjectBuilder| {
        let checksum = text().pattern(Some("^MD5:[0-9a-f]{32}$"));
        object
            .property("ttl", amount("The ttl in seconds, as posted or as extended by a claim."))
            .property("age", amount("Seconds since the message was posted."))
            .property("body", any().description(Some("The body, as it was posted.")))
            .property("checksum", checksum.description(Some("Only if checksums are enabled.")))
            .required("id")
            .required("ttl")
            .required("age")
            .required("body")
    };
    let id = || text().pattern(Some("^[0-9a-f]{32}$"));
    let href = "The path of the message, with the `claim_id` of its claim. Delete it once the message is processed.";
    let linked = object()
        .property("id", id())
        .property("href", text().description(Some(href)))
        .required("href");
    let popped = object()
        .property("id", id())
        .property("claim_id", typed(Type::Null))
        .property("claim_count", amount("How many claims have returned the message."))
        .required("claim_id")
        .required("claim_count");
    let list_of = |name| object().property("messages", array(named(name))).required("messages");
    let linked_list = list_of("Message").property(
        "links",
        array(named("Link"))
            .description(Some("The link to the next page. Omitted if the request has `ids`.")),
    );
    components
        .schema("NewMessage", new)
        .schema("PostMessages", post)
        .schema("Reschedule", reschedule)
        .schema("PostedMessages", posted)
        .schema("Message", message(linked))
        .schema("MessageList", linked_list)
        .schema("PoppedMessage", message(popped))
        .schema("PoppedMessages", list_of("PoppedMessage"))
        .schema("ClaimedMessages", list_of("Message"))
}

/// A pattern that excludes control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn claims(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let nullable = |text: &str, max: i64, default: i64| {
        seconds(text, MIN_TTL, max, default)
            .schema_type([Type::Integer, Type::Null].into_iter().collect::<SchemaType>())
    };
    let ttl = "Seconds until the claim ends.";
    let grace = "A message that would expire before the claim does expires this many seconds after \
                 it instead.";
    let terms = object()
        .property("ttl", nullable(ttl, limits.max_claim_ttl, limits.default_claim_ttl))
        .property("grace", nullable(grace, limits.max_claim_grace, limits.default_claim_grace));
    let claim = object()
        .property("age", amount("Seconds since the claim was created or renewed."))
        .property("ttl", amount(ttl))
        .property("messages", array(named("Message")))
        .property("href", text())
        .required("age")
        .required("ttl")
        .required("messages")
        .required("href");
    components.schema("ClaimTerms", terms).schema("Claim", claim)
}

fn metadata(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let max_post_size = i64::try_from(limits.max_messages_post_size).unwrap_or(i64::MAX);
    // The contract accepts `true` and `false` as the integers 1 and 0.
    let number = |min: i64, max: i64, text: &str| {
        let flags = [false, true].into_iter().filter(|flag| i64::from(*flag) >= min);
        let flags: Vec<Value> = flags.map(Value::from).collect();
        let number = either([Type::Integer, Type::Null]).minimum(Some(min)).maximum(Some(max));
        let number = AnyOfBuilder::new().description(Some(text)).item(number);
        if flags.is_empty() { number } else { number.item(any().enum_values(Some(flags))) }
    };
    let ttl = |text: &str| number(MIN_TTL, limits.max_message_ttl, text);
    let unset = [Value::Null, json!(false), json!(0), json!(""), json!([])];
    let policy = AnyOfBuilder::new()
        .description(Some("How webhooks are retried. Stored, but not used yet."))
        .item(object())
        .item(any().enum_values(Some(unset)));
    let metadata = object()
        .property(
            "_max_messages_post_size",
            number(1, max_post_size, "The maximum size of a post in bytes."),
        )
        .property("_default_message_ttl", ttl("The default ttl of messages."))
        .property(
            "_default_message_delay",
            number(0, limits.max_message_delay, "The default delay of messages. 0 disables delays."),
        )
        .property(
            "_dead_letter_queue",
            any().description(Some("The queue that receives messages that were claimed too often.")),
        )
        .property("_dead_letter_queue_messages_ttl", ttl("The ttl of messages in the dead-letter queue."))
        .property(
            "_max_claim_count",
            number(i64::MIN, i64::MAX, "How many times a message may be claimed before it is moved to the dead-letter queue."),
        )
        .property(
            "_deduplication_window",
            number(1, 86_400, "The deduplication window in seconds, 300 by default."),
        )
        .property(
            "_fifo",
            either([Type::Boolean, Type::Null])
                .description(Some("Whether all messages of the queue are delivered in order, to one claim at a time.")),
        )
        .property(
            "_retention",
            either([Type::String, Type::Null])
                .enum_values(Some([json!("acknowledged"), json!("ttl"), Value::Null]))
                .description(Some(
                    "How long messages posted from now on can be replayed: until the queue and all \
                     groups have acknowledged them, or until their ttl ends.",
                )),
        )
        .property(
            "_enable_encrypt_messages",
            either([Type::Boolean, Type::Null])
                .enum_values(Some([json!(false), Value::Null]))
                .description(Some("Must not be true: encryption is not supported yet.")),
        )
        .property("_retry_policy", policy)
        .description(Some("Reserved keys, which begin with `_`, and any other keys."));
    let shown = ["_max_messages_post_size", "_default_message_ttl", "_default_message_delay"]
        .into_iter()
        .fold(object(), |shown, key| {
            shown.property(key, either([Type::Integer, Type::Boolean])).required(key)
        });
    let shown = ["_dead_letter_queue", "_dead_letter_queue_messages_ttl", "_max_claim_count"]
        .into_iter()
        .fold(shown, |shown, key| shown.property(key, any()).required(key))
        .property("_enable_encrypt_messages", typed(Type::Boolean))
        .required("_enable_encrypt_messages")
        .description(Some("The metadata, with the defaults of unset reserved keys."));
    let operation = |verbs: &[&str]| {
        let path = text().pattern(Some("^/metadata/([^/~\\s]|~[01])+$")).description(Some(
            "`/metadata/` and the key, in which `~1` encodes `/` and `~0` encodes `~`.",
        ));
        let verbs = one_of(verbs.iter().copied());
        object().property("op", verbs).property("path", path).required("op").required("path")
    };
    let set = operation(&["add", "replace"])
        .property("value", any().description(Some("The new value.")))
        .required("value");
    let operations = OneOfBuilder::new().item(set).item(operation(&["remove"]));
    components
        .schema("Metadata", metadata)
        .schema("ShownMetadata", shown)
        .schema("PatchOperation", operations)
        .schema("MetadataPatch", array(named("PatchOperation")))
}

fn queues(components: ComponentsBuilder) -> ComponentsBuilder {
    let link = object()
        .property("rel", one_of(["next"]))
        .property("href", text())
        .required("rel")
        .required("href");
    let queue = object()
        .property("name", text())
        .property("href", text())
        .property("metadata", named("ShownMetadata"))
        .required("name")
        .required("href");
    let list = object()
        .property("queues", array(named("Queue")))
        .property("links", array(named("Link")).max_items(Some(1)))
        .property("count", amount("The number of queues of the project, if requested and not 0."))
        .required("queues")
        .required("links");
    let position = object()
        .property("href", text())
        .property("age", amount("Seconds since the message was posted."))
        .property("created", format("date-time"))
        .required("href")
        .required("age")
        .required("created");
    let counts = object()
        .property("claimed", amount("Claimed messages."))
        .property("free", amount("All other messages."))
        .property("total", amount("All messages."))
        .property("oldest", named("MessageMark"))
        .property("newest", named("MessageMark"))
        .required("claimed")
        .required("free")
        .required("total");
    let redrive = object()
        .property(
            "limit",
            integer(1, MAX_REDRIVEN.into()).description(Some(format!(
                "The maximum number of messages to move, {DEFAULT_REDRIVEN} by default."
            ))),
        )
        .property(
            "rate",
            integer(1, MAX_RATE.into())
                .description(Some("How many moved messages become visible per second, after those of earlier calls. By default, all are visible at once.")),
        )
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let redriven = object()
        .property("redriven", amount("Messages that were moved."))
        .property(
            "stranded",
            amount("Orphaned messages: the queue or group that they came from does not exist any more. They are never moved."),
        )
        .property("more", typed(Type::Boolean).description(Some("Whether more messages can be moved by another call.")))
        .property("until", format("date-time").description(Some("When the last moved message becomes visible.")));
    let redriven = ["redriven", "stranded", "more", "until"]
        .into_iter()
        .fold(redriven, ObjectBuilder::required);
    let stats = object().property("messages", named("MessageCounts")).required("messages");
    let types = array(one_of(["messages", "subscriptions"]));
    let purge = object().property("resource_types", types).required("resource_types");
    components
        .schema("Link", link)
        .schema("Queue", queue)
        .schema("QueueList", list)
        .schema("MessageMark", position)
        .schema("MessageCounts", counts)
        .schema("QueueStats", stats)
        .schema("Redrive", redrive)
        .schema("Redriven", redriven)
        .schema("Purge", purge)
}

fn service(components: ComponentsBuilder) -> ComponentsBuilder {
    let help = object()
        .property("text", text())
        .property("href", text())
        .property("rel", text())
        .description(Some("A link to further information."));
    let error = object()
        .property("title", text().description(Some("The kind of the error.")))
        .property("description", text().description(Some("What is wrong, and with which value.")))
        .property("link", help)
        .required("title");
    let outcome = object()
        .property("succeeded", typed(Type::Boolean))
        .property("seconds", typed(Type::Number))
        .property(
            "ref",
            either([Type::String, Type::Null])
                .description(Some("Identifies the failure in the log.")),
        )
        .required("succeeded")
        .required("seconds")
        .required("ref");
    let outcomes = object().additional_properties(Some(named("Outcome")));
    let health = object()
        .property("storage_reachable", typed(Type::Boolean))
        .property("operation_status", outcomes)
        .required("storage_reachable")
        .required("operation_status");
    let versions =
        object().property("versions", array(object()).min_items(Some(1))).required("versions");
    let home = object().property("resources", object()).required("resources");
    let openapi = object()
        .property("openapi", text())
        .property("paths", object())
        .required("openapi")
        .required("paths");
    let flag = one_of(FLAGS).description(Some("True or false. Without a value, false."));
    components
        .schema("Error", error)
        .schema("Flag", flag)
        .schema("Outcome", outcome)
        .schema("Health", health)
        .schema("Versions", versions)
        .schema("Home", home)
        .schema("Description", openapi)
}
