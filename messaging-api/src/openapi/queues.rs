//! What is said of queues, their statistics and their purges.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, count, in_json, location, operation, response};
use crate::config::Config;

/// The media type of a metadata patch.
pub(crate) const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

const TAG: &str = "queues";

pub(crate) fn list(config: &Config) -> Operation {
    operation(TAG, "list_queues", "List queues", "A page of the project's queues, by name.")
        .by_caller()
        .shared("Marker")
        .query(
            "limit",
            count(config.limits.max_queues_per_page),
            "How many queues to list at most.",
        )
        .flag("detailed", "Whether to show their metadata.")
        .query("name", super::schemas::text(), "A part of the name.")
        .flag("with_count", "Whether to count all queues of the project.")
        .other_parameters(
            "metadata",
            "Any other key names a key of the metadata, and lists the queues that have this value.",
        )
        .json("200", "QueueList", "The queues.")
        .done()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(
        TAG,
        "get_queue",
        "Get a queue's metadata",
        "A queue that does not exist is shown with the defaults.",
    )
    .in_queue()
    .json("200", "ShownMetadata", "The metadata.")
    .done()
}

pub(crate) fn create(config: &Config) -> Operation {
    let text = format!(
        "Makes a queue with these metadata, of at most {} bytes. One that exists stays as it is.",
        config.limits.max_queue_metadata
    );
    let path = || location("The path of the queue.");
    let example = json!({"_default_message_ttl": 600, "team": "shipping"});
    operation(TAG, "create_queue", "Create a queue", &text)
        .in_queue()
        .body(JSON, "Metadata", false, example)
        .answer("201", response("The queue is made.").header("Location", path()))
        .answer("204", response("The queue exists.").header("Location", path()))
        .done()
}

pub(crate) fn patch(_: &Config) -> Operation {
    let example = json!([{"op": "add", "path": "/metadata/team", "value": "billing"}]);
    operation(
        TAG,
        "patch_queue",
        "Change a queue's metadata",
        "Applies operations in order, all or none. The content type must be this one exactly.",
    )
    .in_queue()
    .body(PATCH_TYPE, "MetadataPatch", true, example)
    .answer("200", in_json("The metadata as they are now.", "ShownMetadata"))
    .fails(["404", "409", "415"])
    .done()
}

pub(crate) fn delete(_: &Config) -> Operation {
    operation(
        TAG,
        "delete_queue",
        "Delete a queue",
        "Deletes a queue with its messages and claims.",
    )
    .in_queue()
    .empty("204", "There is no such queue, or no longer.")
    .done()
}

pub(crate) fn stats(_: &Config) -> Operation {
    operation(
        TAG,
        "get_queue_stats",
        "Count a queue's messages",
        "A queue that does not exist has none.",
    )
    .in_queue()
    .json("200", "QueueStats", "The counts.")
    .done()
}

pub(crate) fn redrive(_: &Config) -> Operation {
    operation(
        TAG,
        "redrive_queue",
        "Redrive dead letters",
        "Moves free dead letters, the oldest first, back to the end of the queue or the group that \
         they came from, each as a new message with the ttl that it had. With a `rate`, each becomes \
         visible so much later than the one before, over several calls. Call again while there are \
         `more`: what has moved has moved.",
    )
    .in_queue()
    .body(JSON, "Redrive", false, json!({"limit": 1000, "rate": 50}))
    .json("200", "Redriven", "What became of them.")
    .fails(["404"])
    .done()
}

pub(crate) fn purge(_: &Config) -> Operation {
    operation(
        TAG,
        "purge_queue",
        "Purge a queue",
        "Deletes all messages but those that are claimed. Without a body it deletes everything.",
    )
    .in_queue()
    .body(JSON, "Purge", false, json!({"resource_types": ["messages"]}))
    .empty("204", "It is gone.")
    .done()
}
