//! The operations on messages.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, OperationDoc, count, json_response, location, operation};
use crate::config::Config;

const TAG: &str = "messages";

pub(crate) fn post(config: &Config) -> Operation {
    let text = format!(
        "Stores all messages or none. Creates the queue if it does not exist. The body must not \
         exceed {} bytes, nor the `_max_messages_post_size` of the queue.",
        config.limits.max_messages_post_size
    );
    let example = json!({"messages": [
        {"body": {"order": 1}},
        {"body": {"order": 2}, "ttl": 300},
    ]});
    let posted = json_response("The messages are stored.", "PostedMessages").header(
        "Location",
        location("The path that lists the messages, or the first of them if they are many."),
    );
    operation(TAG, "post_messages", "Post messages", &text)
        .in_queue()
        .body(JSON, "PostMessages", true, example)
        .response("201", posted)
        .errors(["404", "500"])
        .build()
}

pub(crate) fn list(config: &Config) -> Operation {
    let max = config.limits.max_messages_per_page;
    operation(
        TAG,
        "list_messages",
        "List messages",
        "Returns a page of messages, oldest first, or the messages that `ids` names, claimed or not. \
         A queue that does not exist has none.",
    )
    .in_queue()
    .shared("Marker")
    .query("limit", count(max), "The maximum number of messages to list.")
    .flag("echo", "Whether to include messages that this client posted.")
    .flag("include_claimed", "Whether to include claimed messages.")
    .flag("include_delayed", "Whether to include messages that are not visible yet.")
    .flag(
        "scheduled",
        "Whether to list only messages that are not visible yet; with `echo`, also those that this client \
         posted.",
    )
    .shared("Wait")
    .list("ids", max, "The messages to return. All other parameters are then ignored.")
    .example_query("echo=true")
    .json("200", "MessageList", "The messages.")
    .errors(["404"])
    .build()
}

pub(crate) fn delete_many(config: &Config) -> Operation {
    let limits = &config.limits;
    let max = limits.max_messages_per_page;
    let pop = super::types::integer(1, i64::from(limits.max_messages_per_claim_or_pop));
    let requires_claims = config.compat.message_delete_with_claim_id;
    let about = operation(
        TAG,
        "delete_messages",
        "Delete or pop messages",
        "Set either `ids`, to delete these messages, or `pop`, to remove and return the oldest \
         claimable messages.",
    )
    .in_queue()
    .list(
        "ids",
        max,
        "The messages to delete, claimed or not. Messages that do not exist are ignored.",
    )
    .query("pop", pop, "The maximum number of messages to pop.")
    .example_query("pop=1");
    let about: OperationDoc = if requires_claims {
        about.list("claim_ids", max, "The claims that hold the messages. Required with `ids`.")
    } else {
        about
    };
    about
        .json("200", "PoppedMessages", "The popped messages.")
        .empty("204", "The messages of `ids` are deleted.")
        .build()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(TAG, "get_message", "Get a message", "Returns a message, claimed or not.")
        .in_queue()
        .shared("Message")
        .json("200", "Message", "The message.")
        .errors(["404"])
        .build()
}

pub(crate) fn reschedule(_: &Config) -> Operation {
    let example = json!({"deliver_at": "2030-01-31T08:00:00Z"});
    operation(
        TAG,
        "reschedule_message",
        "Reschedule a message",
        "Changes when a message becomes visible, which must not be visible yet. If the time has \
         passed, the message is visible at once. Its ttl starts at that time.",
    )
    .in_queue()
    .shared("Message")
    .body(JSON, "Reschedule", true, example)
    .empty("204", "The message is rescheduled.")
    .errors(["404", "409"])
    .build()
}

pub(crate) fn delete(_: &Config) -> Operation {
    let claim = super::types::text();
    operation(
        TAG,
        "delete_message",
        "Delete a message",
        "Deletes a message. A claimed message can be deleted only with the `claim_id` of its claim, \
         which its `href` contains.",
    )
    .in_queue()
    .shared("Message")
    .query("claim_id", claim, "The claim that holds the message.")
    .empty("204", "The message is deleted, or did not exist.")
    .errors(["403"])
    .build()
}
