//! Waiting for what a server tells only when it is asked.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take, on a busy machine, before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two questions: nothing tells us when it is worth to ask again.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is an answer. After [`DEADLINE`] it panics with what was awaited, why the last
/// attempt failed, and the logs.
pub(crate) fn until<T>(
    awaited: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
    logs: impl FnOnce() -> String,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(answer) => return answer,
            Err(_) if start.elapsed() < DEADLINE => thread::sleep(PAUSE),
            Err(why) => panic!("{awaited}: not within {DEADLINE:?}: {why}\n{}", logs()),
        }
    }
}

/// An attempt that has no other answer than that it succeeded.
pub(crate) fn check(succeeded: bool, why_not: impl FnOnce() -> String) -> Result<(), String> {
    if succeeded { Ok(()) } else { Err(why_not()) }
}
