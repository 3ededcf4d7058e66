//! The configuration: its sections, its sources, and the validation of its values.

mod secrets;
mod sections;
mod sources;
mod validate;

pub(crate) use secrets::without_secrets;
pub use sections::Config;
pub(crate) use sections::{ClientIdRule, Compat, Limits, LogConfig, LogFormat, MIN_TTL};
pub use sources::{Overrides, load};
