//! A child process: its log is read as it comes, and it never outlives the tests.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// Lines kept for the message of a failing test.
const KEPT_LINES: usize = 400;

pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
}

impl Process {
    /// Starts `binary` in `folder`, with no setting of the service but those in `env`.
    pub(crate) fn start(
        binary: &Path,
        args: &[&str],
        folder: &Path,
        env: &[(String, String)],
    ) -> Self {
        let mut command = bound_to_us(binary);
        command.args(args).current_dir(folder);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("CHAPAR__") {
                command.env_remove(key);
            }
        }
        command.envs(env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).expect("the binary can be started");
        let log = Arc::new(Log::new(2));
        drain(child.stdout.take().expect("stdout is piped"), &log);
        drain(child.stderr.take().expect("stderr is piped"), &log);
        Self { child, log }
    }

    /// Everything it wrote lately, on both of its outputs.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Returns when it wrote something, when it ended, or after `pause`.
    pub(crate) fn wait_for_news(&self, pause: Duration) {
        self.log.wait_for_news(pause);
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be asked")
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be awaited");
    }

    /// SIGTERM; returns at once.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill can be started").success(), "no SIGTERM could be sent");
    }

    /// Lets its files grow without a limit.
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
        self.child.wait().expect("the child can be awaited")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
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

    fn wait_for_news(&self, pause: Duration) {
        let state = self.state.lock().unwrap();
        let (read, open) = (state.lines_read, state.open_pipes);
        let same = |state: &mut State| state.lines_read == read && state.open_pipes == open;
        drop(self.changed.wait_timeout_while(state, pause, same).unwrap());
    }

    fn wait_for_end(&self, patience: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let running = |state: &mut State| state.open_pipes > 0;
        let (_state, waited) = self.changed.wait_timeout_while(state, patience, running).unwrap();
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

/// A command for `binary` whose process is killed when the thread that spawned it ends.
fn bound_to_us(binary: &Path) -> Command {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let probe = || {
        let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    if !*AVAILABLE.get_or_init(probe) {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
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

/// Panics with what was awaited if too much time has passed since `start`.
pub(crate) fn assert_in_time(start: Instant, awaited: impl FnOnce() -> String) {
    assert!(start.elapsed() < DEADLINE, "{}", awaited());
}
