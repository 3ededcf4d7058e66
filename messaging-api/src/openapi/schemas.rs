//! What bodies look like.

use serde_json::{Value, json};
use utoipa::openapi::{
    ArrayBuilder, ComponentsBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, SchemaFormat,
    Type,
    schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
};

use crate::{
    config::{Config, Limits, MIN_TTL},
    services::{DEFAULT_REDRIVEN, MAX_RATE, MAX_REDRIVEN},
};

pub(super) fn text() -> ObjectBuilder {
    typed(Type::String)
}

pub(super) fn format(name: &str) -> ObjectBuilder {
    text().format(Some(SchemaFormat::Custom(name.to_owned())))
}

pub(super) fn one_of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> ObjectBuilder {
    text().enum_values(Some(values))
}

pub(super) fn integer(min: i64, max: i64) -> ObjectBuilder {
    typed(Type::Integer).minimum(Some(min)).maximum(Some(max))
}

pub(super) fn array(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    ArrayBuilder::new().items(utoipa::openapi::schema::ArrayItems::from(items.into()))
}

/// Any value at all.
pub(super) fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

fn typed(name: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(name)
}

fn either(names: impl IntoIterator<Item = Type>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(names.into_iter().collect::<SchemaType>())
}

pub(super) fn object() -> ObjectBuilder {
    typed(Type::Object)
}

fn named(schema: &str) -> Ref {
    Ref::from_schema_name(schema)
}

/// Every spelling of a flag of a query.
const FLAGS: [&str; 15] =
    ["true", "false", "True", "False", "t", "f", "yes", "no", "y", "n", "1", "0", "on", "off", ""];

/// A number that never falls below zero.
fn amount(text: &str) -> ObjectBuilder {
    typed(Type::Integer).minimum(Some(0)).description(Some(text))
}

fn seconds(text: &str, min: i64, max: i64, default: i64) -> ObjectBuilder {
    integer(min, max).default(Some(default.into())).description(Some(text))
}

/// Adds the schemas of all bodies.
pub(super) fn add(components: ComponentsBuilder, config: &Config) -> ComponentsBuilder {
    let components = messages(components, &config.limits);
    let components = claims(components, &config.limits);
    let components = metadata(components, &config.limits);
    service(queues(components))
}

fn messages(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let new = object()
        .property("body", any().description(Some("Any JSON value; given back as it is written.")))
        .property(
            "ttl",
            seconds(
                "Seconds that the message lives; without it those of the queue, or this default.",
                MIN_TTL,
                limits.max_message_ttl,
                limits.default_message_ttl,
            ),
        )
        .property(
            "delay",
            integer(0, limits.max_message_delay).description(Some(
                "Seconds until it can be claimed. Counts only in a queue that has a \
                 `_default_message_delay`.",
            )),
        )
        .property(
            "deliver_at",
            format("date-time").description(Some(
                "The moment from which on it can be claimed, in place of `delay`; no further \
                 ahead than a message may live.",
            )),
        )
        .property(
            "deduplication_id",
            text().min_length(Some(1)).max_length(Some(128)).pattern(Some(PRINTABLE)).description(
                Some("Of messages with the same id, within the queue's window, one is stored."),
            ),
        )
        .property(
            "ordering_key",
            text().min_length(Some(1)).max_length(Some(128)).pattern(Some(PRINTABLE)).description(
                Some("Messages with one key are handed out in order, to one claim at a time."),
            ),
        )
        .required("body");
    let post = object()
        .property("messages", array(named("NewMessage")).min_items(Some(1)))
        .required("messages");
    let moment = format("date-time").description(Some(
        "The moment from which on it can be claimed; no further ahead than a message may live.",
    ));
    let reschedule = object()
        .property("deliver_at", moment)
        .required("deliver_at")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let posted = object()
        .property("resources", array(text()).description(Some("Their paths, in order.")))
        .required("resources");
    let message = |object: ObjectBuilder| {
        let checksum = text().pattern(Some("^MD5:[0-9a-f]{32}$"));
        object
            .property("ttl", amount("Seconds that it lives, as posted or as a claim extended it."))
            .property("age", amount("Seconds since it was posted."))
            .property("body", any().description(Some("As it was posted.")))
            .property("checksum", checksum.description(Some("If the service keeps checksums.")))
            .required("id")
            .required("ttl")
            .required("age")
            .required("body")
    };
    let id = || text().pattern(Some("^[0-9a-f]{32}$"));
    let href = "Its path, with the `claim_id` of its claim: what to delete when it is done.";
    let linked = object()
        .property("id", id())
        .property("href", text().description(Some(href)))
        .required("href");
    let popped = object()
        .property("id", id())
        .property("claim_id", typed(Type::Null))
        .property("claim_count", amount("How many claims have taken it."))
        .required("claim_id")
        .required("claim_count");
    let list_of = |name| object().property("messages", array(named(name))).required("messages");
    let linked_list = list_of("Message").property(
        "links",
        array(named("Link")).description(Some("The next page; left out if `ids` were named.")),
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

/// No control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn claims(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let nullable = |text: &str, max: i64, default: i64| {
        seconds(text, MIN_TTL, max, default)
            .schema_type([Type::Integer, Type::Null].into_iter().collect::<SchemaType>())
    };
    let ttl = "Seconds until the claim ends by itself.";
    let grace = "Seconds that its messages live on after it, at the least.";
    let terms = object()
        .property("ttl", nullable(ttl, limits.max_claim_ttl, limits.default_claim_ttl))
        .property("grace", nullable(grace, limits.max_claim_grace, limits.default_claim_grace));
    let claim = object()
        .property("age", amount("Seconds since it was made or renewed."))
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
    // To the contract `true` and `false` are the integers 1 and 0.
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
        .description(Some("How webhooks are to be tried again; kept for those to come."))
        .item(object())
        .item(any().enum_values(Some(unset)));
    let metadata = object()
        .property(
            "_max_messages_post_size",
            number(1, max_post_size, "Bytes that a post may have."),
        )
        .property("_default_message_ttl", ttl("The ttl of messages that are posted without one."))
        .property(
            "_default_message_delay",
            number(0, limits.max_message_delay, "The delay of messages; 0 turns delays off."),
        )
        .property(
            "_dead_letter_queue",
            any().description(Some("The queue for messages that were claimed too often.")),
        )
        .property("_dead_letter_queue_messages_ttl", ttl("The ttl that they get there."))
        .property(
            "_max_claim_count",
            number(i64::MIN, i64::MAX, "How many claims are not too many."),
        )
        .property(
            "_deduplication_window",
            number(1, 86_400, "Seconds for which a `deduplication_id` counts; 300 if not set."),
        )
        .property(
            "_fifo",
            either([Type::Boolean, Type::Null])
                .description(Some("Whether all messages are in one order.")),
        )
        .property(
            "_retention",
            either([Type::String, Type::Null])
                .enum_values(Some([json!("acknowledged"), json!("ttl"), Value::Null]))
                .description(Some(
                    "How long messages that are posted from now on can be replayed: until the queue \
                     and all groups are done with them, or until their ttl ends.",
                )),
        )
        .property(
            "_enable_encrypt_messages",
            either([Type::Boolean, Type::Null])
                .enum_values(Some([json!(false), Value::Null]))
                .description(Some("Must not be true: messages are not encrypted yet.")),
        )
        .property("_retry_policy", policy)
        .description(Some("Reserved keys, which begin with `_`, and any of your own."));
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
        .description(Some("The metadata, with the defaults of the reserved keys filled in."));
    let operation = |verbs: &[&str]| {
        let path = text().pattern(Some("^/metadata/([^/~\\s]|~[01])+$")).description(Some(
            "`/metadata/` and the key, in which `~1` stands for `/` and `~0` for `~`.",
        ));
        let verbs = one_of(verbs.iter().copied());
        object().property("op", verbs).property("path", path).required("op").required("path")
    };
    let set = operation(&["add", "replace"])
        .property("value", any().description(Some("What to set.")))
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
        .property("count", amount("The queues of the project, if asked for and not 0."))
        .required("queues")
        .required("links");
    let mark = object()
        .property("href", text())
        .property("age", amount("Seconds since it was posted."))
        .property("created", format("date-time"))
        .required("href")
        .required("age")
        .required("created");
    let counts = object()
        .property("claimed", amount("Held by claims."))
        .property("free", amount("All others."))
        .property("total", amount("Both together."))
        .property("oldest", named("MessageMark"))
        .property("newest", named("MessageMark"))
        .required("claimed")
        .required("free")
        .required("total");
    let redrive = object()
        .property(
            "limit",
            integer(1, MAX_REDRIVEN.into()).description(Some(format!(
                "How many to move at most; {DEFAULT_REDRIVEN} if not set."
            ))),
        )
        .property(
            "rate",
            integer(1, MAX_RATE.into())
                .description(Some("How many become visible in a second, behind those of the calls before; all at once, \
                     and waiting for nothing, if not set.")),
        )
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let redriven = object()
        .property("redriven", amount("Messages that went back."))
        .property(
            "stranded",
            amount("Messages that stay for good, because where they came from is gone."),
        )
        .property("more", typed(Type::Boolean).description(Some("Whether to call again.")))
        .property("until", format("date-time").description(Some("When the last becomes visible.")));
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
        .schema("MessageMark", mark)
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
        .description(Some("Where to read on."));
    let error = object()
        .property("title", text().description(Some("What kind of error it is.")))
        .property("description", text().description(Some("What was wrong with what.")))
        .property("link", help)
        .required("title");
    let outcome = object()
        .property("succeeded", typed(Type::Boolean))
        .property("seconds", typed(Type::Number))
        .property(
            "ref",
            either([Type::String, Type::Null]).description(Some("Names a failure in the log.")),
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
    let flag = one_of(FLAGS).description(Some("True or false; without a value, false."));
    components
        .schema("Error", error)
        .schema("Flag", flag)
        .schema("Outcome", outcome)
        .schema("Health", health)
        .schema("Versions", versions)
        .schema("Home", home)
        .schema("Description", openapi)
}
