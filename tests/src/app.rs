//! The real binary on free ports and fresh files.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Client;
use crate::ports::free_address;
use crate::process::{Process, assert_in_time};

/// A running server; it ends with the value, and its files are removed.
pub struct TestApp {
    // Declared first, so that the process is gone before its files.
    process: Process,
    binary: PathBuf,
    limits: String,
    env: Vec<(String, String)>,
    address: SocketAddr,
    metrics: SocketAddr,
    folder: TempDir,
}

impl TestApp {
    /// A server with the default configuration that belongs to one test alone.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with the default configuration that all tests share. Each of them works in a
    /// project of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<(TestApp, Child)> = OnceLock::new();
        let start = || {
            let app = Self::start();
            let sweeper = remove_after_us(app.folder.path());
            (app, sweeper)
        };
        &SHARED.get_or_init(start).0
    }

    pub fn builder() -> Builder {
        Builder { binary: built_binary(), limits: String::new(), settings: Vec::new() }
    }

    /// A client that sends a valid Client-ID and a project, both used by nobody else.
    pub fn client(&self) -> Client {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Client::new(self.address).id(&format!("{n:032x}")).project(&format!("project-{n}"))
    }

    /// The file that it keeps everything in.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("chapar.db")
    }

    /// Where it speaks the API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of the metrics listener, without any identity.
    pub fn metrics(&self) -> Client {
        Client::new(self.metrics)
    }

    /// What it logged lately.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has logged this text.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert_in_time(start, || format!("{text:?} is not in the log:\n{}", self.log()));
            self.process.wait_for_news(Duration::from_millis(100));
        }
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; returns at once.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Starts it once more on the same files and ports, after it ended.
    pub fn start_again(&mut self) {
        let folder = self.folder.path();
        self.process = serve(&self.binary, &self.limits, folder, &self.env);
        self.wait_until_ready();
    }

    /// Lets the files grow again, now and after the next start.
    pub fn lift_limits(&mut self) {
        self.process.lift_file_limit();
        self.limits.clear();
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.ended() {
                panic!("the server ended at its start, {status}; its log:\n{}", self.log());
            }
            let listens = |address: &SocketAddr| TcpStream::connect(address).is_ok();
            if [self.address, self.metrics].iter().all(listens) {
                return;
            }
            assert_in_time(start, || format!("the server does not listen:\n{}", self.log()));
            self.process.wait_for_news(Duration::from_millis(20));
        }
    }
}

/// The configuration of a server to be.
#[must_use]
pub struct Builder {
    binary: PathBuf,
    limits: String,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// Sets a configuration key, such as `HTTP__BODY_TIMEOUT`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((format!("CHAPAR__{key}"), value.to_owned()));
        self
    }

    /// Takes another binary than the one beside the tests.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = path.into();
        self
    }

    /// Runs these commands of the shell before the binary, in the process that becomes it.
    pub fn limits(mut self, commands: &str) -> Self {
        commands.clone_into(&mut self.limits);
        self
    }

    pub fn start(self) -> TestApp {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (address, metrics) = (free_address(), free_address());
        let store = format!("sqlite:{}", folder.path().join("chapar.db").display());
        let own = [
            ("CHAPAR__HTTP__LISTEN", address.to_string()),
            ("CHAPAR__METRICS__LISTEN", metrics.to_string()),
            ("CHAPAR__CATALOG__URI", store.clone()),
            ("CHAPAR__POOL__URI", store),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        let env: Vec<_> = own.into_iter().chain(self.settings).collect();
        let Self { binary, limits, .. } = self;
        let process = serve(&binary, &limits, folder.path(), &env);
        let mut app = TestApp { process, binary, limits, env, address, metrics, folder };
        app.wait_until_ready();
        app
    }
}

/// Removes a folder once this process has ended, however it ends: nobody drops a static.
fn remove_after_us(folder: &Path) -> Child {
    let mut sweeper = Command::new("/bin/sh");
    // Our end of the pipe closes with us, and then there is nothing more to read.
    sweeper.args(["-c", "read -r _; rm -rf \"$0\""]).arg(folder).stdin(Stdio::piped());
    sweeper.spawn().expect("a shell can be started")
}

fn serve(binary: &Path, limits: &str, folder: &Path, env: &[(String, String)]) -> Process {
    if limits.is_empty() {
        return Process::start(binary, &["serve"], folder, env);
    }
    let script = format!("{limits}\nexec \"$0\" serve");
    let binary = binary.to_str().expect("the path of the binary is text");
    Process::start(Path::new("/bin/sh"), &["-c", &script, binary], folder, env)
}

/// Runs the binary with these arguments and settings until it ends: its status and its output.
pub fn run(args: &[&str], settings: &[(&str, &str)]) -> (ExitStatus, String) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let env: Vec<_> =
        settings.iter().map(|(key, value)| (format!("CHAPAR__{key}"), (*value).into())).collect();
    let mut process = Process::start(&built_binary(), args, folder.path(), &env);
    (process.wait(), process.log())
}

/// `target/<profile>/chapar`, beside the folder from which the tests run.
fn built_binary() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests know their own path");
    let profile = tests.ancestors().nth(2).expect("the tests run from target/<profile>/deps");
    let binary = profile.join("chapar");
    assert!(
        binary.is_file(),
        "{} is not there: run cargo build -p messaging-api first",
        binary.display()
    );
    binary
}
