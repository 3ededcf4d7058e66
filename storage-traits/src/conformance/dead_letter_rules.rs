//! Builders of dead-letter rules and of claims with one.

use super::{TestQueue, builders::claim_spec};
use crate::domain::{ClaimSpec, DeadLetter};

/// Returns a rule under which messages keep their ttl and are not retained.
pub fn dead_letter_to(max_claim_count: u32, dlq: &TestQueue) -> DeadLetter {
    DeadLetter { queue: dlq.queue.clone(), max_claim_count, ttl: None, retained: false }
}

/// Returns a claim of 60 seconds with the rule of [`dead_letter_to`].
pub fn claim_with_dead_letter(n: u32, max_claim_count: u32, dlq: &TestQueue) -> ClaimSpec {
    ClaimSpec { dead_letter: Some(dead_letter_to(max_claim_count, dlq)), ..claim_spec(n) }
}
