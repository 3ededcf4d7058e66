//! What is said of claims.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, count, in_json, location, operation};
use crate::config::Config;

const TAG: &str = "claims";

pub(crate) fn create(config: &Config) -> Operation {
    let claimed = in_json("The messages that are claimed.", "ClaimedMessages")
        .header("Location", location("The path of the claim."));
    operation(
        TAG,
        "create_claim",
        "Claim messages",
        "Takes the oldest free messages, so that no other claim takes them until this one ends. \
         Delete each message by its `href` when it is done.",
    )
    .in_queue()
    .query(
        "limit",
        count(config.limits.max_messages_per_claim_or_pop),
        "How many messages to claim at most.",
    )
    .shared("Wait")
    .body(JSON, "ClaimTerms", false, json!({"ttl": 60, "grace": 60}))
    .answer("201", claimed)
    .empty("204", "There is nothing to claim.")
    .done()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(
        TAG,
        "get_claim",
        "Get a claim",
        "Reads a claim and the messages that it still holds.",
    )
    .in_queue()
    .shared("Claim")
    .json("200", "Claim", "The claim.")
    .fails(["404"])
    .done()
}

pub(crate) fn renew(_: &Config) -> Operation {
    operation(TAG, "renew_claim", "Renew a claim", "Lets a claim start anew, with these terms.")
        .in_queue()
        .shared("Claim")
        .body(JSON, "ClaimTerms", true, json!({"ttl": 60, "grace": 60}))
        .empty("204", "It holds on.")
        .fails(["404"])
        .done()
}

pub(crate) fn release(_: &Config) -> Operation {
    operation(
        TAG,
        "release_claim",
        "Release a claim",
        "Ends a claim: its messages are free at once.",
    )
    .in_queue()
    .shared("Claim")
    .empty("204", "There is no such claim, or no longer.")
    .done()
}
