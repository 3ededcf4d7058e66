/// Error of a driver, kept for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Result of a store method.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Failure of a store method. The variant determines what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object of a command does not exist. Nothing was changed.
    #[error("{kind} {key} does not exist")]
    NotFound {
        /// Kind of the missing object: `queue` or `claim`.
        kind: &'static str,
        /// Name or id of the object.
        key: String,
    },
    /// Another caller changed the object after it was read. Nothing was changed. The caller reads
    /// it again and retries.
    #[error("{kind} {key} was changed meanwhile")]
    Conflict {
        /// Kind of the changed object: `queue`.
        kind: &'static str,
        /// Name or id of the object.
        key: String,
    },
    /// A limit of the store on pending work is reached. Nothing was changed. The caller retries
    /// later.
    #[error("{backend} has too much to do")]
    Overloaded {
        /// Name of the backend.
        backend: &'static str,
    },
    /// The server cannot be reached, or cannot accept writes. Whether the change was made is
    /// unknown. The caller may retry.
    #[error("{backend} cannot be reached")]
    Unavailable {
        /// Name of the backend.
        backend: &'static str,
        /// The driver's error.
        source: Source,
    },
    /// The server's response is not one that the backend expects: a bug, which a retry does not
    /// cure.
    #[error("unexpected answer from {backend}")]
    Unexpected {
        /// Name of the backend.
        backend: &'static str,
        /// The driver's error.
        source: Source,
    },
}

impl StoreError {
    /// Returns [`StoreError::NotFound`] of `kind` and `key`.
    pub fn not_found(kind: &'static str, key: &impl ToString) -> Self {
        Self::NotFound { kind, key: key.to_string() }
    }

    /// Returns a copy for another caller whose work was part of the same failed call. A driver's
    /// error cannot be cloned, so the copy keeps only its text.
    #[must_use]
    pub fn to_shared_copy(&self) -> Self {
        match self {
            Self::NotFound { kind, key } => Self::NotFound { kind, key: key.clone() },
            Self::Conflict { kind, key } => Self::Conflict { kind, key: key.clone() },
            Self::Overloaded { backend } => Self::Overloaded { backend },
            Self::Unavailable { backend, source } => {
                Self::Unavailable { backend, source: source.to_string().into() }
            }
            Self::Unexpected { backend, source } => {
                Self::Unexpected { backend, source: source.to_string().into() }
            }
        }
    }
}
