//! Classifies the driver's errors by kind, code and label, never by text: a retry can cure them, or
//! not.

use std::error::Error as _;

use mongodb::{
    bson::{Document, deserialize_from_document, doc},
    error::{
        CommandError, Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR,
        TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
    },
};
use storage_traits::{Source, StoreError};

const BACKEND: &str = "mongodb";

/// Codes of errors that a retry can cure, on the same server or on another.
const TRANSIENT_CODES: [i32; 37] = [
    6,     // HostUnreachable
    7,     // HostNotFound
    24,    // LockTimeout
    43,    // CursorNotFound
    46,    // LockBusy
    50,    // MaxTimeMSExpired
    63,    // StaleShardVersion
    64,    // WriteConcernTimeout
    89,    // NetworkTimeout
    91,    // ShutdownInProgress
    112,   // WriteConflict
    117,   // ConflictingOperationInProgress
    133,   // FailedToSatisfyReadPreference
    134,   // ReadConcernMajorityNotAvailableYet
    150,   // StaleEpoch
    175,   // QueryPlanKilled
    189,   // PrimarySteppedDown
    202,   // NetworkInterfaceExceededTimeLimit
    225,   // TransactionTooOld
    237,   // CursorKilled
    239,   // SnapshotTooOld
    246,   // SnapshotUnavailable
    251,   // NoSuchTransaction
    262,   // ExceededTimeLimit
    276,   // IndexBuildAborted
    290,   // TransactionExceededLifetimeLimitSeconds
    314,   // ObjectIsBusy
    317,   // ConnectionPoolExpired
    9001,  // SocketException
    10058, // LegacyNotPrimary
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11601, // Interrupted
    11602, // InterruptedDueToReplStateChange
    13388, // StaleConfig
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
];

/// Codes of errors that last until an operator acts.
const UNABLE_CODES: [i32; 6] = [
    13,    // Unauthorized
    18,    // AuthenticationFailed
    100,   // UnsatisfiableWriteConcern
    146,   // ExceededMemoryLimit
    8000,  // AtlasError
    14031, // OutOfDiskSpace
];

const DUPLICATE_KEY: i32 = 11_000;

/// A server that can be reached but cannot be used, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnsupportedServer(pub(crate) String);

impl UnsupportedServer {
    /// Returns an error of the driver that carries this one.
    pub(crate) fn error(sentence: impl Into<String>) -> Error {
        Error::custom(Self(sentence.into()))
    }
}

/// The server cannot be reached, or cannot write.
pub(crate) fn unavailable(source: impl Into<Source>) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, source: source.into() }
}

/// A reply that the protocol does not allow, or an unsupported server.
pub(crate) fn unexpected(source: impl Into<Source>) -> StoreError {
    StoreError::Unexpected { backend: BACKEND, source: source.into() }
}

/// Too many calls are waiting.
pub(crate) const fn overloaded() -> StoreError {
    StoreError::Overloaded { backend: BACKEND }
}

/// Returns the error of a command that was executed in part.
pub(crate) fn command_error(code: i32, reply: &Document) -> Error {
    let error = doc! { "code": code, "codeName": "", "errmsg": reply.to_string() };
    match deserialize_from_document::<CommandError>(error) {
        Ok(error) => ErrorKind::Command(error).into(),
        Err(error) => Error::custom(error),
    }
}

/// Converts an error of the driver to one of the contract.
pub(crate) fn store_error(error: Error) -> StoreError {
    if let Some(unsupported) = error.get_custom::<UnsupportedServer>() {
        return unexpected(unsupported.clone());
    }
    let is_unable = matches!(*error.kind, ErrorKind::Authentication { .. } | ErrorKind::Shutdown)
        || codes(&error).any(|code| UNABLE_CODES.contains(&code));
    if is_unable || is_transient(&error) { unavailable(error) } else { unexpected(error) }
}

/// Returns whether a retry can succeed.
pub(crate) fn is_transient(error: &Error) -> bool {
    let labels = [
        RETRYABLE_WRITE_ERROR,
        RETRYABLE_ERROR,
        TRANSIENT_TRANSACTION_ERROR,
        UNKNOWN_TRANSACTION_COMMIT_RESULT,
    ];
    matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::DnsResolve { .. }
    ) || labels.iter().any(|label| error.contains_label(label))
        || codes(error).any(|code| TRANSIENT_CODES.contains(&code))
}

/// Returns whether a unique index rejected a write.
pub(crate) fn is_duplicate_key(error: &Error) -> bool {
    codes(error).any(|code| code == DUPLICATE_KEY)
}

/// Returns all codes of an error: of the command, its writes and its write concern.
fn codes(error: &Error) -> impl Iterator<Item = i32> {
    let mut codes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        match &*error.kind {
            ErrorKind::Command(command) => codes.push(command.code),
            ErrorKind::Write(WriteFailure::WriteError(write)) => codes.push(write.code),
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => codes.push(concern.code),
            ErrorKind::InsertMany(many) => {
                codes.extend(many.write_errors.iter().flatten().map(|write| write.code));
                codes.extend(many.write_concern_error.iter().map(|concern| concern.code));
            }
            ErrorKind::BulkWrite(bulk) => {
                codes.extend(bulk.write_errors.values().map(|write| write.code));
                codes.extend(bulk.write_concern_errors.iter().map(|concern| concern.code));
            }
            _ => {}
        }
        // The driver boxes the errors that caused its own.
        next = error.source().and_then(|source| {
            source.downcast_ref().or_else(|| source.downcast_ref().map(Box::<Error>::as_ref))
        });
    }
    codes.into_iter()
}

#[cfg(test)]
mod tests {
    use mongodb::error::CommandError;

    use super::*;

    fn command(code: i32) -> Error {
        let error = mongodb::bson::doc! { "code": code, "codeName": "", "errmsg": "" };
        let error: CommandError = mongodb::bson::deserialize_from_document(error).unwrap();
        ErrorKind::Command(error).into()
    }

    #[test]
    fn errors_are_classified_by_code() {
        for (code, transient, unavailable) in [
            (10107, true, true),  // another server is the primary
            (112, true, true),    // another transaction was first
            (64, true, true),     // too few members have it in time
            (13, false, true),    // no permission
            (14031, false, true), // the disk is full
            (11000, false, false),
            (9, false, false), // a command that makes no sense
        ] {
            assert_eq!(is_transient(&command(code)), transient, "{code}");
            let sorted = store_error(command(code));
            let is_unavailable = matches!(sorted, StoreError::Unavailable { .. });
            assert_eq!(is_unavailable, unavailable, "{code}");
            assert_eq!(is_duplicate_key(&command(code)), code == DUPLICATE_KEY);
        }
    }

    #[test]
    fn a_lost_connection_is_retried() {
        let error = Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(is_transient(&error));
        assert!(matches!(store_error(error), StoreError::Unavailable { .. }));
        let closed = Error::from(ErrorKind::Shutdown);
        assert!(!is_transient(&closed));
        assert!(matches!(store_error(closed), StoreError::Unavailable { .. }));
    }

    #[test]
    fn an_unsupported_server_is_reported_with_its_reason() {
        let error = UnsupportedServer::error("the server is a toaster");
        assert!(!is_transient(&error));
        let StoreError::Unexpected { source, .. } = store_error(error) else { panic!("a retry") };
        assert_eq!(source.to_string(), "the server is a toaster");
    }
}
