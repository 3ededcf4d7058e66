//! The clients that people use: each makes a tour through the API and checks what it sees.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::TestApp;

/// Runs a script of `tests/python` against a server with the default configuration.
fn tour(script: &str) {
    let mut command = Command::new(python());
    command.arg(scripts().join(script)).arg(format!("http://{}", TestApp::shared().address()));
    succeeds(command, script);
}

/// The interpreter that has the clients.
pub(crate) fn python() -> PathBuf {
    let python = root().join(".venv/bin/python");
    assert!(python.is_file(), "run scripts/test.sh, which makes the venv");
    python
}

/// The folder of the scripts.
pub(crate) fn scripts() -> PathBuf {
    root().join("tests/python")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace")
}

/// Runs a command to its end; its output is shown if it fails.
pub(crate) fn succeeds(mut command: Command, what: &str) {
    let output = command.output().expect("the interpreter can be started");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (shown(&output.stdout), shown(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn python_zaqarclient_works_unmodified() {
    tour("zaqarclient_tour.py");
}

#[test]
fn openstacksdk_works_unmodified() {
    tour("openstacksdk_tour.py");
}
