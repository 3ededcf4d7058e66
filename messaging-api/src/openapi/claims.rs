//! The operations on claims.

use serde_json::json;
use utoipa::openapi::path::Operation;

use super::components::{JSON, count, json_response, location, operation};
use crate::config::Config;

const TAG: &str = "claims";

pub(crate) fn create(config: &Config) -> Operation {
    let claimed = json_response("The claimed messages.", "ClaimedMessages")
        .header("Location", location("The path of the claim."));
    operation(
        TAG,
        "create_claim",
        "Claim messages",
        "Claims the oldest claimable messages. No other claim returns them until this claim ends. \
         Delete each message by its `href` once it is processed.",
    )
    .in_queue()
    .query(
        "limit",
        count(config.limits.max_messages_per_claim_or_pop),
        "How many messages to claim at most.",
    )
    .shared("Wait")
    .body(JSON, "ClaimTerms", false, json!({"ttl": 60, "grace": 60}))
    .response("201", claimed)
    .empty("204", "No message is claimable.")
    .build()
}

pub(crate) fn get(_: &Config) -> Operation {
    operation(
        TAG,
        "get_claim",
        "Get a claim",
        "Returns a claim and the messages that it still holds.",
    )
    .in_queue()
    .shared("Claim")
    .json("200", "Claim", "The claim.")
    .errors(["404"])
    .build()
}

pub(crate) fn renew(_: &Config) -> Operation {
    operation(
        TAG,
        "renew_claim",
        "Renew a claim",
        "Starts the ttl of the claim again, with these terms.",
    )
    .in_queue()
    .shared("Claim")
    .body(JSON, "ClaimTerms", true, json!({"ttl": 60, "grace": 60}))
    .empty("204", "The claim is renewed.")
    .errors(["404"])
    .build()
}

pub(crate) fn release(_: &Config) -> Operation {
    operation(
        TAG,
        "release_claim",
        "Release a claim",
        "Ends a claim. Its messages are claimable at once.",
    )
    .in_queue()
    .shared("Claim")
    .empty("204", "The claim is released, or did not exist.")
    .build()
}
