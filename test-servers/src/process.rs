//! Child processes that never outlive the tests.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

use crate::wait::{self, DEADLINE, check};

/// Lines of a log in the message of a failing test.
const SHOWN_LINES: usize = 40;

/// A running child process. Dropping it kills the process.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`. `configure` adds the arguments, environment and pipes to the command.
    pub fn spawn(program: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = bound_to_this_process(program);
        configure(&mut command);
        let child = spawn(command);
        Self { child: child.unwrap_or_else(|error| panic!("{}: {error}", program.display())) }
    }

    /// Starts `program` in `folder` and appends its output to the file `log`.
    pub(crate) fn start(program: &Path, args: &[String], folder: &Path, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log can be made");
        let errors = log.try_clone().expect("the log can be shared");
        Self::spawn(program, |command| {
            command.args(args).current_dir(folder);
            command.stdin(Stdio::null()).stdout(log).stderr(errors);
        })
    }

    /// Returns stdout and stderr of a process that was spawned with pipes for both.
    pub fn take_pipes(&mut self) -> (ChildStdout, ChildStderr) {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        (stdout, self.child.stderr.take().expect("stderr is piped"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status if the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the status of the child can be read")
    }

    /// Blocks until the process ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child can be awaited")
    }

    /// Sends SIGKILL and returns when the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.wait();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGSTOP and returns when the process is stopped.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let stopped = || check(self.state() == Some('T'), || format!("{:?}", self.state()));
        wait::until("a process stops", stopped, String::new);
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal by the shell's builtin `kill`: the program of that name may be missing.
    fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("/bin/sh").args(["-c", "kill -s $0 $1", signal, &pid]).status();
        assert!(sent.expect("a shell can be started").success(), "SIG{signal} was not sent");
    }

    /// Returns the state letter of `/proc/PID/stat`. It follows the program's name, which is in
    /// parentheses and may contain any character.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the path of a program. Panics with the name of its Debian package if it is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is missing: install the Debian package {package}"))
}

/// Looks for a program in the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file())
}

/// Runs a program to its end. Panics with its output if it fails.
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

/// Returns the last lines of a log file.
pub(crate) fn end_of_log(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Returns a command for `program` whose process is killed when the thread that spawned it ends.
fn bound_to_this_process(program: &Path) -> Command {
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

/// Spawns from a thread that lives as long as the test process. The thread of a single test may
/// end before a server that it shares with other tests.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // The caller may have timed out. The child is dropped then, and ends with us.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, child) = mpsc::channel();
    spawner.send((command, reply)).expect("the spawning thread never ends");
    child.recv_timeout(DEADLINE).expect("a process starts in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no-such-server is missing: install the Debian package some-server")]
    fn a_missing_program_is_reported_with_its_package() {
        program("no-such-server", "some-server");
    }
}
