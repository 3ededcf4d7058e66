//! Runtime parts that every backend needs and none has to write again.
//!
//! None of this is a contract: a backend may do without it. [`WatchRegistry`] wakes the watches of a
//! node, [`WatchSchedule`] and [`WatchDriver`] know when time alone changes a watched queue,
//! [`SlidingMinuteCounter`] and [`EventCounters`] count, [`RedriveSchedule`] spreads redriven messages
//! over time.

mod event_counters;
mod minute_counter;
mod redrive_schedule;
mod watch_driver;
mod watch_registry;
mod watch_schedule;

pub use event_counters::{EventCounters, EventCounts};
pub use minute_counter::SlidingMinuteCounter;
pub use redrive_schedule::RedriveSchedule;
pub use watch_driver::WatchDriver;
pub use watch_registry::{Watch, WatchFor, WatchRegistry};
pub use watch_schedule::WatchSchedule;
