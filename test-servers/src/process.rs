//! Child processes that never outlive the tests.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

use crate::wait::{self, DEADLINE, check};

/// Lines of a log in the message of a failing test.
const SHOWN_LINES: usize = 40;

/// A running child; it is killed when the value is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` in `folder`; what it writes is added to the file `log`.
    pub(crate) fn start(program: &Path, args: &[String], folder: &Path, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log can be made");
        let errors = log.try_clone().expect("the log can be shared");
        let mut command = bound_to_us(program);
        command.args(args).current_dir(folder);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Self { child: spawn(command).expect("the program can be started") }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_some()
    }

    /// SIGSTOP; returns when the process stands still.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let stopped = || check(self.state() == Some('T'), || format!("{:?}", self.state()));
        wait::until("a process stops", stopped, String::new);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sent by the shell itself, so that it takes no program that may be missing.
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("/bin/sh").args(["-c", "kill -s $0 $1", signal, &pid]).status();
        assert!(sent.expect("a shell can be started").success(), "SIG{signal} was not sent");
    }

    /// The letter after the name, which is in parentheses and may hold anything.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is; panics with the Debian package that has it if it is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is missing: install the Debian package {package}"))
}

/// Where a program is in the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file())
}

/// Runs a program to its end; panics with what it wrote if it fails.
pub(crate) fn run(program: &Path, args: &[&str], folder: &Path) {
    let output = Command::new(program).args(args).current_dir(folder).output();
    let output = output.expect("the program can be started");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{} {args:?}: {}\n{}{}",
        program.display(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The last lines of a log.
pub(crate) fn end_of_log(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// A command for `program` whose process is killed when the thread that spawned it ends.
fn bound_to_us(program: &Path) -> Command {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let probe = || {
        let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    if !*AVAILABLE.get_or_init(probe) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Spawns from one thread that lives as long as the tests: a test's own thread ends before the
/// server that it shares with the others.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // The one who asked may have given up; then the child is dropped, and bound to us.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).expect("the spawning thread never ends");
    answer.recv_timeout(DEADLINE).expect("a process starts in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no-such-server is missing: install the Debian package some-server")]
    fn a_missing_program_names_its_package() {
        program("no-such-server", "some-server");
    }
}
