//! The clients that people use: each makes a tour through the API and checks what it sees.

use std::path::Path;
use std::process::Command;

use tests::TestApp;

/// Runs a script of `tests/python` against a server with the default configuration.
fn tour(script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace");
    let python = root.join(".venv/bin/python");
    assert!(python.is_file(), "run scripts/test.sh, which makes the venv");
    let output = Command::new(python)
        .arg(root.join("tests/python").join(script))
        .arg(format!("http://{}", TestApp::shared().address()))
        .output()
        .expect("the interpreter can be started");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (shown(&output.stdout), shown(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn python_zaqarclient_works_unmodified() {
    tour("zaqarclient_tour.py");
}

#[test]
fn openstacksdk_works_unmodified() {
    tour("openstacksdk_tour.py");
}
