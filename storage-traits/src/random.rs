//! Random numbers from the operating system's source.

use std::time::Duration;

/// Returns random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a source of randomness");
    bytes
}

/// Returns 64 random bits, for tokens that no other node generates.
pub fn random_i64() -> i64 {
    i64::from_be_bytes(bytes())
}

/// Returns a random part of a back-off time, so that nodes which failed together do not retry
/// together.
pub fn jitter(backoff: Duration) -> Duration {
    backoff.mul_f64(f64::from(u32::from_be_bytes(bytes())) / f64::from(u32::MAX))
}
