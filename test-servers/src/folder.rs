//! Temporary folders that are removed with the test process.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

/// Reads the paths of folders until its input ends with the test process, then removes them. It
/// ignores signals from the keyboard, which are meant for the test process. The second attempt is
/// for a server that was still writing.
const SWEEP: &str = r#"
trap '' HUP INT TERM
while read -r folder; do set -- "$@" "$folder"; done
rm -rf -- "$@" 2>/dev/null || { sleep 1; rm -rf -- "$@"; }
"#;

/// Creates an empty folder. It is removed when it is dropped, or when the process ends: the value
/// of a static is never dropped.
pub fn temporary_folder() -> TempDir {
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
    writeln!(input, "{}", folder.path().display()).expect("the shell reads its input");
    folder
}
