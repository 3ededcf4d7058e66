//! The operations on queues, their statistics, purge and redrive.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, count, json_response, location, operation, response};
use crate::config::Config;

/// The media type of a metadata patch.
pub(crate) const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

const TAG: &str = "queues";

pub(crate) fn list(config: &Config) -> Operation {
    operation(
        TAG,
        "list_queues",
        "List queues",
        "Returns a page of the project's queues, ordered by name.",
    )
    .by_caller()
    .shared("Marker")
    .query(
        "limit",
        count(config.limits.max_queues_per_page),
        "The maximum number of queues to list.",
    )
    .flag("detailed", "Whether to include the metadata.")
    .query("name", super::types::text(), "A part of the queue name.")
    .flag("with_count", "Whether to return the number of queues of the project.")
    .other_parameters(
        "metadata",
        "Any other parameter names a metadata key, and selects the queues that have this value.",
    )
    .json("200", "QueueList", "The queues.")
    .build()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(
        TAG,
        "get_queue",
        "Get a queue's metadata",
        "Returns the metadata. A queue that does not exist has the defaults.",
    )
    .in_queue()
    .json("200", "ShownMetadata", "The metadata.")
    .build()
}

pub(crate) fn create(config: &Config) -> Operation {
    let text = format!(
        "Creates a queue with this metadata, of at most {} bytes. An existing queue is not changed.",
        config.limits.max_queue_metadata
    );
    let path = || location("The path of the queue.");
    let example = json!({"_default_message_ttl": 600, "team": "shipping"});
    operation(TAG, "create_queue", "Create a queue", &text)
        .in_queue()
        .body(JSON, "Metadata", false, example)
        .response("201", response("The queue is created.").header("Location", path()))
        .response("204", response("The queue exists.").header("Location", path()))
        .build()
}

pub(crate) fn patch(_: &Config) -> Operation {
    let example = json!([{"op": "add", "path": "/metadata/team", "value": "billing"}]);
    operation(
        TAG,
        "patch_queue",
        "Change a queue's metadata",
        "Applies all operations in order, or none. The content type must be exactly the documented \
         one.",
    )
    .in_queue()
    .body(PATCH_TYPE, "MetadataPatch", true, example)
    .response("200", json_response("The new metadata.", "ShownMetadata"))
    .errors(["404", "409", "415"])
    .build()
}

pub(crate) fn delete(_: &Config) -> Operation {
    operation(
        TAG,
        "delete_queue",
        "Delete a queue",
        "Deletes a queue with its messages, groups and claims.",
    )
    .in_queue()
    .empty("204", "The queue is deleted, or did not exist.")
    .build()
}

pub(crate) fn stats(_: &Config) -> Operation {
    operation(
        TAG,
        "get_queue_stats",
        "Count a queue's messages",
        "Returns the number of messages. A queue that does not exist has none.",
    )
    .in_queue()
    .json("200", "QueueStats", "The counts.")
    .build()
}

pub(crate) fn redrive(_: &Config) -> Operation {
    operation(
        TAG,
        "redrive_queue",
        "Redrive dead letters",
        "Moves claimable dead letters, oldest first, back to the end of the queue or group that they \
         came from. Each becomes a new message with its original ttl. With a `rate`, they become \
         visible one after the other at this rate, also across calls. Call again while `more` is \
         true. A failed call does not undo what was moved.",
    )
    .in_queue()
    .body(JSON, "Redrive", false, json!({"limit": 1000, "rate": 50}))
    .json("200", "Redriven", "The counts of moved and orphaned messages.")
    .errors(["404"])
    .build()
}

pub(crate) fn purge(_: &Config) -> Operation {
    operation(
        TAG,
        "purge_queue",
        "Purge a queue",
        "Deletes all messages that are not claimed. Without a body, all resource types are purged.",
    )
    .in_queue()
    .body(JSON, "Purge", false, json!({"resource_types": ["messages"]}))
    .empty("204", "The messages are deleted.")
    .build()
}
