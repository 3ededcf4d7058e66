//! Typed extractors: what every request must carry, checked in the order of the contract.

mod body;
mod caller;
mod query;

pub use body::BodyReader;
pub use caller::{Accepted, Caller, InQueue, accept_header, segment};
pub use query::{Query, parse_integer};
