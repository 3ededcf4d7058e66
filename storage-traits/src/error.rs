/// What the driver said; kept for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// The result of a store method.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a store did not do what it was asked. The variant says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object of a command is missing; nothing was changed.
    #[error("{kind} {key} does not exist")]
    NotFound {
        /// What is missing: `queue`, `claim`.
        kind: &'static str,
        /// Which one.
        key: String,
    },
    /// Somebody else changed the object since it was read; nothing was changed. Read it again.
    #[error("{kind} {key} was changed meanwhile")]
    Conflict {
        /// What was changed.
        kind: &'static str,
        /// Which one.
        key: String,
    },
    /// A bound of the store is reached; nothing was changed. Worth a retry a little later.
    #[error("{backend} has too much to do")]
    Overloaded {
        /// Which store.
        backend: &'static str,
    },
    /// The server cannot be reached, or cannot write: whether the change was made is unknown.
    /// Worth a retry.
    #[error("{backend} cannot be reached")]
    Unavailable {
        /// Which store.
        backend: &'static str,
        /// The driver's error.
        source: Source,
    },
    /// The server's answer makes no sense: a bug, not worth a retry.
    #[error("unexpected answer from {backend}")]
    Unexpected {
        /// Which store.
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

    /// Returns a copy for another caller whose work shared the failed call. Sources cannot be
    /// cloned: the copy keeps their text.
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
