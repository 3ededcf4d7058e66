//! Typed extractors: what every request must carry, checked in the order of the contract.

mod body;
mod caller;
mod query;

pub(crate) use body::{BodyReader, PlaceTaken};
pub(crate) use caller::{Accepted, Caller, InQueue, accept_header, segment};
pub(crate) use query::{Query, parse_integer};
