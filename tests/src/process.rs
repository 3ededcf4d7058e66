//! A child process whose log is read as it is written.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use test_servers::DEADLINE;

/// Lines kept for the message of a failing test.
const KEPT_LINES: usize = 400;

pub(crate) struct Process {
    child: test_servers::Process,
    log: Arc<Log>,
}

impl Process {
    /// Starts `program` in `folder`. Of the service's settings, its environment has only `env`.
    pub(crate) fn start(
        program: &Path,
        args: &[&str],
        folder: &Path,
        env: &[(String, String)],
    ) -> Self {
        let mut child = test_servers::Process::spawn(program, |command| {
            command.args(args).current_dir(folder);
            for (key, _) in std::env::vars_os() {
                if key.to_string_lossy().starts_with("CHAPAR__") {
                    command.env_remove(key);
                }
            }
            command.envs(env.iter().cloned());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        });
        let (stdout, stderr) = child.take_pipes();
        let log = Arc::new(Log::new(2));
        drain(stdout, &log);
        drain(stderr, &log);
        Self { child, log }
    }

    /// Returns the last lines that it wrote to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Blocks until it writes a line or ends, for at most `pause`.
    pub(crate) fn wait_for_change(&self, pause: Duration) {
        self.log.wait_for_change(pause);
    }

    /// Returns the exit status if it has ended.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.exit_status()
    }

    /// Sends SIGKILL and returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.child.terminate();
    }

    /// Removes the limit on the size of its files.
    pub(crate) fn lift_file_limit(&self) {
        let pid = self.child.id().to_string();
        let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
        assert!(lifted.expect("prlimit can be started").success(), "the limit was not lifted");
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if !self.log.wait_for_end(DEADLINE) {
            self.kill();
            panic!("the process did not end; its log:\n{}", self.log());
        }
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            self.child.kill();
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    lines_read: usize,
    open_pipes: usize,
}

impl Log {
    fn new(open_pipes: usize) -> Self {
        let state = State { open_pipes, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap();
        if state.lines.len() == KEPT_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(String::from_utf8_lossy(line).into_owned());
        state.lines_read += 1;
        self.changed.notify_all();
    }

    fn close_pipe(&self) {
        self.state.lock().unwrap().open_pipes -= 1;
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().lines.iter().map(String::as_str).collect()
    }

    fn wait_for_change(&self, pause: Duration) {
        let state = self.state.lock().unwrap();
        let (read, open) = (state.lines_read, state.open_pipes);
        let same = |state: &mut State| state.lines_read == read && state.open_pipes == open;
        drop(self.changed.wait_timeout_while(state, pause, same).unwrap());
    }

    fn wait_for_end(&self, timeout: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let running = |state: &mut State| state.open_pipes > 0;
        let (_state, waited) = self.changed.wait_timeout_while(state, timeout, running).unwrap();
        !waited.timed_out()
    }
}

/// Reads a pipe to its end, so that the child never blocks on a full one.
fn drain(pipe: impl Read + Send + 'static, log: &Arc<Log>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.push(&line);
            line.clear();
        }
        log.close_pipe();
    });
}

/// Panics with what was awaited if more than [`DEADLINE`] has passed since `start`.
pub(crate) fn assert_in_time(start: Instant, awaited: impl FnOnce() -> String) {
    assert!(start.elapsed() < DEADLINE, "{}", awaited());
}
