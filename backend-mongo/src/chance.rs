//! Chance, from the system's source of randomness.

use mongodb::bson::Uuid;

/// A number that nobody else draws.
pub(crate) fn stamp() -> i64 {
    // Version and variant of a random UUID are in the bytes 6 and 8, all others are chance.
    let [first, .., b1, b2, b3, b4, b5, b6, b7] = Uuid::new().bytes();
    i64::from_be_bytes([first, b1, b2, b3, b4, b5, b6, b7])
}

/// A number from 0 to 1.
pub(crate) fn fraction() -> f64 {
    let [a, b, c, d, ..] = Uuid::new().bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}
