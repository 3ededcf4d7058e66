//! Waiting for a state that a server reports only when it is asked.

use std::thread;
use std::time::{Duration, Instant};

/// How long any expected event may take. A test never depends on this time: it only bounds a hang,
/// and leaves room for a busy machine.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Repeats an attempt until it succeeds. After [`DEADLINE`], panics with what was awaited, the
/// error of the last attempt, and the logs.
pub(crate) fn until<T>(
    awaited: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
    logs: impl FnOnce() -> String,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(result) => return result,
            Err(_) if start.elapsed() < DEADLINE => thread::sleep(PAUSE),
            Err(why) => panic!("{awaited}: not within {DEADLINE:?}: {why}\n{}", logs()),
        }
    }
}

/// Turns a condition into the result of an attempt.
pub(crate) fn check(succeeded: bool, why_not: impl FnOnce() -> String) -> Result<(), String> {
    if succeeded { Ok(()) } else { Err(why_not()) }
}
