//! Waiting for a state that a server reports only when it is asked.

use std::time::{Duration, Instant};

use test_servers::DEADLINE;
use tokio::time::{MissedTickBehavior, interval};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Repeats an attempt until it returns a value. Panics after [`DEADLINE`].
pub async fn eventually<T>(awaited: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let (start, mut ticks) = (Instant::now(), interval(PAUSE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "{awaited}: not within {DEADLINE:?}");
    }
}
