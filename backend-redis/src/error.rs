//! The driver's errors: classified by how to recover, and turned into those of the contract.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use storage_traits::{Source, StoreError};

const BACKEND: &str = "redis";

/// Returns the error for a server that cannot be reached, or cannot write.
pub(crate) fn unavailable(source: impl Into<Source>) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, source: source.into() }
}

/// Returns the error for a reply that makes no sense, or a server that does not meet the
/// requirements.
pub(crate) fn unexpected(source: impl Into<Source>) -> StoreError {
    StoreError::Unexpected { backend: BACKEND, source: source.into() }
}

/// Returns the error for too many calls, or a server without free memory.
pub(crate) const fn overloaded() -> StoreError {
    StoreError::Overloaded { backend: BACKEND }
}

/// How to recover from an error of a command.
#[derive(Debug)]
pub(crate) enum Recovery {
    /// Load the functions and send the command again: it was not executed.
    LoadFunctions,
    /// Send the command to this node, which has the slot: it was not executed.
    Moved(String),
    /// Send the command to this node, which is importing the slot: it was not executed.
    Ask(String),
    /// Send the command again after a pause: it was not executed.
    Retry,
    /// Send the command again after a pause, maybe to another node: it was not executed.
    RetryElsewhere,
    /// Close the connections and return an error: whether the command was executed is unknown.
    Reconnect,
    /// Return this error.
    Fail(StoreError),
}

/// Classifies an error.
pub(crate) fn classify(error: RedisError) -> Recovery {
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::Moved | ServerErrorKind::Ask => match error.redirect_node() {
                Some((address, _)) if kind == ServerErrorKind::Moved => {
                    Recovery::Moved(address.to_owned())
                }
                Some((address, _)) => Recovery::Ask(address.to_owned()),
                None => Recovery::RetryElsewhere,
            },
            ServerErrorKind::TryAgain => Recovery::Retry,
            ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => Recovery::RetryElsewhere,
            _ if is_unknown_function(&error) => Recovery::LoadFunctions,
            _ => Recovery::Fail(unexpected(error)),
        },
        ErrorKind::Extension => match error.code() {
            Some("OOM") => Recovery::Fail(overloaded()),
            // The disk is full, too few replicas are connected, or a function runs too long.
            Some("MISCONF" | "NOREPLICAS" | "BUSY") => Recovery::Fail(unavailable(error)),
            Some("UNKILLABLE") => Recovery::Reconnect,
            _ => Recovery::Fail(unexpected(error)),
        },
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            Recovery::Fail(unavailable(error))
        }
        _ if error.is_unrecoverable_error() || error.is_io_error() => Recovery::Reconnect,
        _ => Recovery::Fail(unexpected(error)),
    }
}

/// Returns whether the server does not have the called function: it was restarted without its data,
/// or its functions were flushed.
///
/// Redis reports this with the general code `ERR`, so only the text tells it apart. Asking with
/// `FUNCTION LIST` before each call would cost a round trip.
fn is_unknown_function(error: &RedisError) -> bool {
    error.detail().is_some_and(|text| text.contains("Function not found"))
}

/// Displays an error with its causes.
pub(crate) struct ErrorChain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
