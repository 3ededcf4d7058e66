//! What is said of consumer groups.

use serde_json::json;
use utoipa::openapi::{
    ComponentsBuilder, ObjectBuilder, Ref, RefOr, Schema, Type,
    path::Operation,
    schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
};

use super::{
    components::{JSON, count, in_json, location, operation, response},
    schemas::{any, array, format, integer, object, one_of, text},
};
use crate::config::{Config, Limits, MIN_TTL};

const TAG: &str = "groups";
const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";

pub(crate) fn list(config: &Config) -> Operation {
    operation(TAG, "list_groups", "List groups", "A page of the queue's consumer groups, by name.")
        .in_queue()
        .query(
            "marker",
            // One without a value counts as not given.
            text().pattern(Some("^[A-Za-z0-9_.-]{0,64}$")),
            "The marker of the `next` link: where the page before ended.",
        )
        .query(
            "limit",
            count(config.limits.max_queues_per_page),
            "How many groups to list at most.",
        )
        .json("200", "GroupList", "The groups; none if the queue does not exist.")
        .done()
}

pub(crate) fn create(_: &Config) -> Operation {
    operation(
        TAG,
        "create_group",
        "Create a group",
        "Makes a consumer group, and its queue if that is missing. One that exists stays as it is. \
         A queue has at most 100.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "NewGroup", false, json!({"start": "start"}))
    .answer(
        "201",
        response("The group is made.").header("Location", location("The path of the group.")),
    )
    .empty("204", "The group exists.")
    .fails(["404", "409"])
    .done()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(TAG, "get_group", "Get a group", "Reads a group, and how much it has still to do.")
        .in_queue()
        .shared("Group")
        .json("200", "GroupState", "The group.")
        .fails(["404"])
        .done()
}

pub(crate) fn delete(_: &Config) -> Operation {
    operation(TAG, "delete_group", "Delete a group", "Deletes a group with all that it has.")
        .in_queue()
        .shared("Group")
        .empty("204", "There is no such group, or no longer.")
        .done()
}

pub(crate) fn seek(_: &Config) -> Operation {
    operation(
        TAG,
        "seek_group",
        "Move a group",
        "Lets the group go on from another point, backward too. What it has claimed is claimed no \
         more, and cannot be acknowledged.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "Seek", true, json!({"to": "start"}))
    .empty("204", "It goes on from there.")
    .fails(["404"])
    .done()
}

pub(crate) fn claim(config: &Config) -> Operation {
    let claimed = in_json("The messages that are claimed.", "GroupClaim")
        .header("Location", location("The path of the claim."));
    operation(
        TAG,
        "claim_for_group",
        "Claim messages for a group",
        "Takes free messages, so that no other claim of the group takes them until this one ends. \
         Acknowledge each when it is done.",
    )
    .in_queue()
    .shared("Group")
    .query(
        "limit",
        count(config.limits.max_messages_per_claim_or_pop),
        "How many messages to claim at most.",
    )
    .shared("Wait")
    .body(JSON, "ClaimTerms", false, json!({"ttl": 60, "grace": 60}))
    .answer("201", claimed)
    .empty("204", "There is nothing to claim.")
    .fails(["404"])
    .done()
}

pub(crate) fn get_claim(_: &Config) -> Operation {
    operation(
        TAG,
        "get_group_claim",
        "Get a claim of a group",
        "Reads a claim and the messages that it still holds.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .json("200", "GroupClaim", "The claim.")
    .fails(["404"])
    .done()
}

pub(crate) fn renew(_: &Config) -> Operation {
    operation(
        TAG,
        "renew_group_claim",
        "Renew a claim of a group",
        "Lets a claim start anew, with these terms.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .body(JSON, "ClaimTerms", true, json!({"ttl": 60, "grace": 60}))
    .empty("204", "It holds on.")
    .fails(["404"])
    .done()
}

pub(crate) fn release(_: &Config) -> Operation {
    operation(
        TAG,
        "release_group_claim",
        "Release a claim of a group",
        "Ends a claim: its messages are free at once.",
    )
    .in_queue()
    .shared("Group")
    .shared("Claim")
    .empty("204", "There is no such claim, or no longer.")
    .fails(["404"])
    .done()
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
        "Says how it went with messages that a claim holds, each by itself. One that failed is free \
         again after its delay; the rest of the claim stays as it is.",
    )
    .in_queue()
    .shared("Group")
    .body(JSON, "Acknowledgements", true, example)
    .json("200", "AcknowledgementResults", "What became of each, in order.")
    .fails(["404"])
    .done()
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
            "The first message, the next that is posted, the first one posted at a time or later, \
             or the one in a position.",
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
    let burying = settings(object())
        .property("start", named("StartPoint"))
        .required("dead_letter_queue")
        .required("max_claim_count")
        .additional_properties(closed());
    let new = AnyOfBuilder::new().item(plain).item(burying).description(Some(
        "Where to begin, `end` if not said, and where to move what was claimed too often.",
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
        .description(Some("Messages that were done with in a second, over the last minute."));
    let state = group()
        .property("backlog", amount().description(Some("Messages that are still to be claimed.")))
        .property("in_flight", amount().description(Some("Messages under a claim.")))
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
        .property("sequence", amount().description(Some("Its position in the queue.")))
        .property(
            "claim_count",
            amount().description(Some("How many claims of the group took it.")),
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
                .description(Some("Seconds until it is tried again.")),
        )
        .required("id");
    let max = limits.max_messages_per_claim_or_pop as usize;
    let acknowledgements = object()
        .property("claim_id", text())
        .property("acknowledged", array(text()).max_items(Some(max)))
        .property("failed", array(failed).max_items(Some(max)))
        .required("claim_id")
        .description(Some("Of messages that are named twice the first mention counts."));
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
