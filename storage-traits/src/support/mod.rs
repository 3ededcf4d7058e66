//! Runtime parts that backends share.
//!
//! They are not part of the contract; a backend may do without them. [`WatchRegistry`] wakes the
//! watches of a node, [`WatchSchedule`] and [`WatchDriver`] keep the due times of watched queues,
//! [`SlidingMinuteCounter`] and [`EventCounters`] count events, and [`RedriveSchedule`] spreads
//! redriven messages over time.

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
