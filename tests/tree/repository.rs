//! The files of the repository.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the folder that holds the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Returns the tracked files with one of these extensions, relative to the root.
pub(crate) fn tracked(extensions: &[&str]) -> Vec<PathBuf> {
    let mut git = Command::new("git");
    let output = git.args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let has_extension = |path: &PathBuf| {
        path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
    };
    // A file that is deleted but not committed yet is still listed.
    let exists = |path: &PathBuf| root().join(path).exists();
    names.split_terminator('\0').map(PathBuf::from).filter(has_extension).filter(exists).collect()
}

/// Reads a file of the repository.
pub(crate) fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}
