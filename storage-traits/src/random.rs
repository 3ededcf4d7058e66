//! Random numbers from the operating system.

use std::time::Duration;

/// Returns random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
    bytes
}

/// Returns 64 random bits, for tokens that must differ from those of all other nodes.
pub fn random_i64() -> i64 {
    i64::from_be_bytes(bytes())
}

/// Returns a random duration from zero to `backoff`, so that nodes which failed at the same time do
/// not retry at the same time.
pub fn jitter(backoff: Duration) -> Duration {
    backoff.mul_f64(f64::from(u32::from_be_bytes(bytes())) / f64::from(u32::MAX))
}
