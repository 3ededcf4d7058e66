//! Support for tests of a backend whose servers fail: clients that cause load, and shorthands. Not
//! part of the specification.

mod exercise;
mod helpers;
mod load;

pub use super::builders::{
    DEADLINE, ack, claim_spec, deduplicated, delayed, keyed, limit, list_all, list_visible,
    message, nack, retained,
};
pub use super::dead_letter_rules::{claim_with_dead_letter, dead_letter_to};
pub use exercise::exercise;
pub use helpers::{answered, counted, everything, soon, text, through, until_it_works};
pub use load::{Load, Post, Story};
