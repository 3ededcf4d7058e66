//! The operations on consumer groups, and their schemas.

use serde_json::json;
use utoipa::openapi::{
    ComponentsBuilder, ObjectBuilder, Ref, RefOr, Schema, Type,
    path::Operation,
    schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
};

use super::{
    components::{JSON, count, json_response, location, operation, response},
    types::{any, array, format, integer, object, one_of, text},
};
use crate::config::{Config, Limits, MIN_TTL};

const TAG: &str = "groups";
const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";

pub(crate) fn list(config: &Config) -> Operation {
    operation(
        TAG,
        "list_groups",
        "List groups",
        "Returns a page of the queue's consumer groups, ordered by name.",
    )
    .in_queue()
    .query(
        "marker",
        // A parameter without a value is ignored.
        text().pattern(Some("^[A-Za-z0-9_.-]{0,64}$")),
        "The marker of the `next` link of the previous page.",
    )
    .query(
        "limit",
        count(config.limits.max_queues_per_page),
        "The maximum number of groups to list.",
    )
    .json("200", "GroupList", "The groups. A queue that does not exist has none.")
    .build()
}

pub(crate) fn create(_: &Config) -> Operation {
    operation(
        TAG,
        "create_group",
        "Create a group",
        "Creates a consumer group, and its queue if that does not exist. An existing group is not \
         changed. A queue has at most 100 groups.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "NewGroup", false, json!({"start": "start"}))
    .response(
        "201",
        response("The group is created.").header("Location", location("The path of the group.")),
    )
    .empty("204", "The group exists.")
    .errors(["404", "409"])
    .build()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(TAG, "get_group", "Get a group", "Returns a group, its backlog and its rate.")
        .in_queue()
        .shared("Group")
        .json("200", "GroupState", "The group.")
        .errors(["404"])
        .build()
}

pub(crate) fn delete(_: &Config) -> Operation {
    operation(
        TAG,
        "delete_group",
        "Delete a group",
        "Deletes a group with its delivery state and its claims.",
    )
    .in_queue()
    .shared("Group")
    .empty("204", "The group is deleted, or did not exist.")
    .build()
}

pub(crate) fn seek(_: &Config) -> Operation {
    operation(
        TAG,
        "seek_group",
        "Move a group",
        "Moves the group to another position, forward or backward. Its claims end, and the messages \
         that they held cannot be acknowledged any more.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "Seek", true, json!({"to": "start"}))
    .empty("204", "The group continues from that position.")
    .errors(["404"])
    .build()
}

pub(crate) fn claim(config: &Config) -> Operation {
    let claimed = json_response("The claimed messages.", "GroupClaim")
        .header("Location", location("The path of the claim."));
    operation(
        TAG,
        "claim_for_group",
        "Claim messages for a group",
        "Claims claimable messages. No other claim of the group returns them until this claim ends. \
         Acknowledge each message once it is processed.",
    )
    .in_queue()
    .shared("Group")
    .query(
        "limit",
        count(config.limits.max_messages_per_claim_or_pop),
        "The maximum number of messages to claim.",
    )
    .shared("Wait")
    .body(JSON, "ClaimTerms", false, json!({"ttl": 60, "grace": 60}))
    .response("201", claimed)
    .empty("204", "No message is claimable.")
    .errors(["404"])
    .build()
}

pub(crate) fn get_claim(_: &Config) -> Operation {
    operation(
        TAG,
        "get_group_claim",
        "Get a claim of a group",
        "Returns a claim and the messages that it still holds.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .json("200", "GroupClaim", "The claim.")
    .errors(["404"])
    .build()
}

pub(crate) fn renew(_: &Config) -> Operation {
    operation(
        TAG,
        "renew_group_claim",
        "Renew a claim of a group",
        "Starts the ttl of the claim again, with these terms.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .body(JSON, "ClaimTerms", true, json!({"ttl": 60, "grace": 60}))
    .empty("204", "The claim is renewed.")
    .errors(["404"])
    .build()
}

pub(crate) fn release(_: &Config) -> Operation {
    operation(
        TAG,
        "release_group_claim",
        "Release a claim of a group",
        "Ends a claim. Its messages are claimable at once.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .empty("204", "The claim is released, or did not exist.")
    .errors(["404"])
    .build()
}

pub(crate) fn acknowledge(_: &Config) -> Operation {
    let example = json!({
        "claim_id": "2220dc496815942d1aba70806433b64b",
        "acknowledged": ["00001978b7d3c1a50000000000000001"],
        "failed": [{"id": "00001978b7d3c1a50000000000000002", "delay": 30}],
    });
    operation(
        TAG,
        "acknowledge_messages",
        "Acknowledge messages",
        "Reports the outcome of messages that a claim holds, one by one. A failed message is \
         claimable again after its delay. The other messages of the claim are not affected.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "Acknowledgements", true, example)
    .json(
        "200",
        "AcknowledgementResults",
        "The result of each message, in the order of the request.",
    )
    .errors(["404"])
    .build()
}

/// Adds the schemas of the bodies.
pub(super) fn schemas(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let point = AnyOfBuilder::new()
        .item(one_of(["start", "end"]))
        .item(
            object()
                .property("time", format("date-time"))
                .required("time")
                .additional_properties(Some(AdditionalProperties::FreeForm(false))),
        )
        .item(
            object()
                .property("sequence", integer(0, i64::MAX))
                .required("sequence")
                .additional_properties(Some(AdditionalProperties::FreeForm(false))),
        )
        .description(Some(
            "The first message, the next posted message, the first message posted at or after a \
             time, or the message at a sequence number.",
        ));
    let named = |name| RefOr::<Schema>::from(Ref::from_schema_name(name));
    let queue = || text().pattern(Some(NAME));
    let settings = |object: ObjectBuilder| {
        object
            .property("dead_letter_queue", queue())
            .property("max_claim_count", integer(1, i64::from(u32::MAX)))
            .property("dead_letter_ttl", integer(MIN_TTL, limits.max_message_ttl))
    };
    let closed = || Some(AdditionalProperties::FreeForm(false));
    let plain = object().property("start", named("StartPoint")).additional_properties(closed());
    let with_dead_letters = settings(object())
        .property("start", named("StartPoint"))
        .required("dead_letter_queue")
        .required("max_claim_count")
        .additional_properties(closed());
    let new = AnyOfBuilder::new().item(plain).item(with_dead_letters).description(Some(
        "The start position, `end` by default, and the queue for messages that were claimed too \
         often.",
    ));
    let group = || {
        settings(object())
            .property("name", text())
            .property("href", text())
            .property("created_at", format("date-time"))
            .required("name")
            .required("href")
            .required("created_at")
    };
    let rate = ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0))
        .description(Some("Messages acknowledged per second, over the last minute."));
    let state = group()
        .property(
            "backlog",
            amount().description(Some("Messages that are not claimed, including delayed ones.")),
        )
        .property("in_flight", amount().description(Some("Messages that are claimed.")))
        .property("oldest_age", amount().schema_type(nullable(Type::Integer)))
        .property("rate", rate)
        .required("rate")
        .required("backlog")
        .required("in_flight")
        .required("oldest_age");
    let list = object()
        .property("groups", array(group()))
        .property("links", array(named("Link")).max_items(Some(1)))
        .required("groups")
        .required("links");
    let seek = object().property("to", named("StartPoint")).required("to");
    let components = components
        .schema("StartPoint", point)
        .schema("NewGroup", new)
        .schema("GroupState", state)
        .schema("GroupList", list)
        .schema("Seek", seek);
    claims(components, limits)
}

fn amount() -> ObjectBuilder {
    integer(0, i64::MAX)
}

fn nullable(name: Type) -> SchemaType {
    [name, Type::Null].into_iter().collect()
}

fn claims(components: ComponentsBuilder, limits: &Limits) -> ComponentsBuilder {
    let message = object()
        .property("id", text().pattern(Some("^[0-9a-f]{32}$")))
        .property(
            "sequence",
            amount().description(Some("The position of the message in the queue.")),
        )
        .property(
            "claim_count",
            amount().description(Some("How many claims of the group have returned the message.")),
        )
        .property("ordering_key", text().schema_type(nullable(Type::String)))
        .property("ttl", amount())
        .property("age", amount())
        .property("body", any())
        .property("checksum", text());
    let message = ["id", "sequence", "claim_count", "ordering_key", "ttl", "age", "body"]
        .into_iter()
        .fold(message, ObjectBuilder::required);
    let claim = object()
        .property("claim_id", text())
        .property("ttl", amount())
        .property("age", amount())
        .property("messages", array(message))
        .required("claim_id")
        .required("ttl")
        .required("age")
        .required("messages");
    let failed = object()
        .property("id", text())
        .property(
            "delay",
            integer(0, limits.max_claim_ttl)
                .schema_type(nullable(Type::Integer))
                .description(Some("Seconds until the message is claimable again.")),
        )
        .required("id");
    let max = limits.max_messages_per_claim_or_pop as usize;
    let acknowledgements = object()
        .property("claim_id", text())
        .property("acknowledged", array(text()).max_items(Some(max)))
        .property("failed", array(failed).max_items(Some(max)))
        .required("claim_id")
        .description(Some("If a message is named twice, its first outcome is used."));
    let result = object()
        .property("id", text())
        .property("result", one_of(["acknowledged", "failed", "not_held"]))
        .required("id")
        .required("result");
    let results = object().property("results", array(result)).required("results");
    components
        .schema("GroupClaim", claim)
        .schema("Acknowledgements", acknowledgements)
        .schema("AcknowledgementResults", results)
}
