use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use storage_traits::pool::Durability;

/// How to open a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Path of the file. A missing file is created, a missing folder is not.
    pub path: PathBuf,
    /// [`Durability::Fsync`], or [`Durability::OsBuffer`] for a file that may lose the latest
    /// commits in a power cut. A crash of the service alone loses none.
    pub durability: Durability,
    /// Number of threads that read.
    pub readers: NonZeroUsize,
}

impl SqliteOptions {
    /// Returns the defaults for a path: every commit reaches the disk, two readers.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            durability: Durability::Fsync,
            readers: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}
