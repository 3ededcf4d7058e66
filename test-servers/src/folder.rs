//! Folders that are gone with the test process.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

/// Reads folders to the end of its input, which comes when we end, then removes them. A signal
/// from the keyboard is for us alone. The second attempt is for a server that was still writing.
const SWEEP: &str = r#"
trap '' HUP INT TERM
while read -r folder; do set -- "$@" "$folder"; done
rm -rf -- "$@" 2>/dev/null || { sleep 1; rm -rf -- "$@"; }
"#;

/// An empty folder. It is removed when it is dropped, or when the process ends: nobody drops a
/// static.
pub(crate) fn new() -> TempDir {
    static SWEEPER: OnceLock<Mutex<Child>> = OnceLock::new();
    let folder = tempfile::Builder::new().prefix("server-").tempdir();
    let folder = folder.expect("a temporary folder can be made");
    let sweeper = SWEEPER.get_or_init(|| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SWEEP]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(shell.spawn().expect("a shell can be started"))
    });
    let mut sweeper = sweeper.lock().unwrap_or_else(PoisonError::into_inner);
    let input = sweeper.stdin.as_mut().expect("its input is piped");
    writeln!(input, "{}", folder.path().display()).expect("the shell listens");
    folder
}
