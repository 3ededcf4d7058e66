//! Existing Python clients: a script for each calls the API and checks the results.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::TestApp;

/// Runs a script of `tests/python` against a server with the default configuration.
fn run_script(script: &str) {
    let mut command = Command::new(python());
    command.arg(scripts().join(script)).arg(format!("http://{}", TestApp::shared().address()));
    assert_succeeds(command, script);
}

/// Returns the Python interpreter of the virtual environment with the clients.
pub(crate) fn python() -> PathBuf {
    let python = root().join(".venv/bin/python");
    assert!(python.is_file(), "run scripts/test.sh, which creates the virtual environment");
    python
}

/// Returns the folder of the scripts.
pub(crate) fn scripts() -> PathBuf {
    root().join("tests/python")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace")
}

/// Runs a command to its end. Panics with its output if it fails.
pub(crate) fn assert_succeeds(mut command: Command, what: &str) {
    let output = command.output().expect("the interpreter can be started");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (shown(&output.stdout), shown(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn python_zaqarclient_works() {
    run_script("zaqarclient_client.py");
}

#[test]
fn openstacksdk_works() {
    run_script("openstacksdk_client.py");
}
