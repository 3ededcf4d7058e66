//! Typed extractors of request data, which check it in the order of the contract.

mod body;
mod caller;
mod long_poll;
mod query;

pub(crate) use body::BodyReader;
pub(crate) use caller::{AcceptsJson, Caller, InQueue, accept_header, segment};
pub(crate) use long_poll::LongPoll;
pub(crate) use query::{Query, parse_integer};
