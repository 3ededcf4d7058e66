//! What is said of messages.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, OperationDoc, count, in_json, location, operation};
use crate::config::Config;

const TAG: &str = "messages";

pub(crate) fn post(config: &Config) -> Operation {
    let text = format!(
        "Stores messages, all or none. Makes the queue if it is missing. The messages must not \
         be larger than {} bytes together, or than the queue's `_max_messages_post_size`.",
        config.limits.max_messages_post_size
    );
    let example = json!({"messages": [
        {"body": {"order": 1}},
        {"body": {"order": 2}, "ttl": 300},
    ]});
    let posted = in_json("They are stored.", "PostedMessages")
        .header("Location", location("The path that lists the messages, or the first of many."));
    operation(TAG, "post_messages", "Post messages", &text)
        .in_queue()
        .body(JSON, "PostMessages", true, example)
        .answer("201", posted)
        .fails(["404", "500"])
        .done()
}

pub(crate) fn list(config: &Config) -> Operation {
    let max = config.limits.max_messages_per_page;
    operation(
        TAG,
        "list_messages",
        "List messages",
        "A page of the messages, oldest first, or those that `ids` names, claimed or not. A queue \
         that does not exist has none.",
    )
    .in_queue()
    .shared("Marker")
    .query("limit", count(max), "How many messages to list at most.")
    .flag("echo", "Whether to list messages that this client posted.")
    .flag("include_claimed", "Whether to list messages that are claimed.")
    .flag("include_delayed", "Whether to list messages that are not due yet.")
    .flag(
        "scheduled",
        "Whether to list nothing but messages that are not due yet; your own with `echo`.",
    )
    .shared("Wait")
    .list("ids", max, "The messages to read; then no other parameter counts.")
    .example_query("echo=true")
    .json("200", "MessageList", "The messages.")
    .fails(["404"])
    .done()
}

pub(crate) fn delete_many(config: &Config) -> Operation {
    let limits = &config.limits;
    let max = limits.max_messages_per_page;
    let pop = super::schemas::integer(1, i64::from(limits.max_messages_per_claim_or_pop));
    let with_claims = config.compat.message_delete_with_claim_id;
    let about = operation(
        TAG,
        "delete_messages",
        "Delete or pop messages",
        "Give either `ids`, to delete these messages, or `pop`, to take the oldest free messages \
         off the queue.",
    )
    .in_queue()
    .list("ids", max, "The messages to delete, claimed or not; those that are gone do not matter.")
    .query("pop", pop, "How many messages to take at most.")
    .example_query("pop=1");
    let about: OperationDoc = if with_claims {
        about.list("claim_ids", max, "The claims that hold the messages; needed with `ids`.")
    } else {
        about
    };
    about
        .json("200", "PoppedMessages", "The messages that were taken.")
        .empty("204", "The messages of `ids` are gone.")
        .done()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(TAG, "get_message", "Get a message", "Reads a message, claimed or not.")
        .in_queue()
        .shared("Message")
        .json("200", "Message", "The message.")
        .fails(["404"])
        .done()
}

pub(crate) fn reschedule(_: &Config) -> Operation {
    let example = json!({"deliver_at": "2030-01-31T08:00:00Z"});
    operation(
        TAG,
        "reschedule_message",
        "Reschedule a message",
        "Delivers a message that is not due yet at another time, or at once if that has passed. Its \
         ttl counts from then on.",
    )
    .in_queue()
    .shared("Message")
    .body(JSON, "Reschedule", true, example)
    .empty("204", "It is delivered then.")
    .fails(["404", "409"])
    .done()
}

pub(crate) fn delete(_: &Config) -> Operation {
    let claim = super::schemas::text();
    operation(
        TAG,
        "delete_message",
        "Delete a message",
        "Deletes a message. One that is claimed can be deleted only by naming its claim, as its \
         `href` does.",
    )
    .in_queue()
    .shared("Message")
    .query("claim_id", claim, "The claim that holds the message.")
    .empty("204", "The message is gone, if it was there.")
    .fails(["403"])
    .done()
}
