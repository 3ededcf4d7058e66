//! The service's binary on free ports and with files of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_servers::{free_port, temporary_folder};

use crate::client::Client;
use crate::process::{Process, assert_in_time};

/// A running server. Dropping it kills the process and removes its files.
pub struct TestApp {
    // Declared first, so that the process ends before its files are removed.
    process: Process,
    binary: PathBuf,
    limits: String,
    env: Vec<(String, String)>,
    address: SocketAddr,
    metrics: SocketAddr,
    folder: TempDir,
}

impl TestApp {
    /// Starts a server with the default configuration for one test.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Returns a server with the default configuration that tests share. Each client of it has a
    /// project of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestApp> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn builder() -> Builder {
        Builder { binary: built_binary(), limits: String::new(), settings: Vec::new() }
    }

    /// Returns a client with a Client-ID and a project that no other client has.
    pub fn client(&self) -> Client {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Client::new(self.address).id(&format!("{n:032x}")).project(&format!("project-{n}"))
    }

    /// Returns its SQLite file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("chapar.db")
    }

    /// Returns the address of the API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a client of the metrics listener, without any identity.
    pub fn metrics(&self) -> Client {
        Client::new(self.metrics)
    }

    /// Returns the last lines of its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Blocks until its log contains this text.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert_in_time(start, || format!("{text:?} is not in the log:\n{}", self.log()));
            self.process.wait_for_change(Duration::from_millis(100));
        }
    }

    /// Sends SIGKILL and returns when the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Blocks until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Restarts it with the same files and ports, after it has ended.
    pub fn restart(&mut self) {
        let folder = self.folder.path();
        self.process = serve(&self.binary, &self.limits, folder, &self.env);
        self.wait_until_ready();
    }

    /// Removes the limit on the size of its files, now and after a restart.
    pub fn lift_limits(&mut self) {
        self.process.lift_file_limit();
        self.limits.clear();
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.exit_status() {
                panic!("the server ended during its start, {status}; its log:\n{}", self.log());
            }
            let listens = |address: &SocketAddr| TcpStream::connect(address).is_ok();
            if [self.address, self.metrics].iter().all(listens) {
                return;
            }
            assert_in_time(start, || format!("the server does not listen:\n{}", self.log()));
            self.process.wait_for_change(Duration::from_millis(20));
        }
    }
}

/// The configuration of a server that is not started yet.
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

    /// Runs another binary than the one beside the tests.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = path.into();
        self
    }

    /// Runs these shell commands in the server's process, before the binary replaces the shell.
    pub fn limits(mut self, commands: &str) -> Self {
        commands.clone_into(&mut self.limits);
        self
    }

    pub fn start(self) -> TestApp {
        let folder = temporary_folder();
        let [address, metrics] =
            [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
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

fn serve(binary: &Path, limits: &str, folder: &Path, env: &[(String, String)]) -> Process {
    if limits.is_empty() {
        return Process::start(binary, &["serve"], folder, env);
    }
    let script = format!("{limits}\nexec \"$0\" serve");
    let binary = binary.to_str().expect("the path of the binary is text");
    Process::start(Path::new("/bin/sh"), &["-c", &script, binary], folder, env)
}

/// Runs the binary with these arguments and settings to its end. Returns its status and output.
pub fn run(args: &[&str], settings: &[(&str, &str)]) -> (ExitStatus, String) {
    let folder = temporary_folder();
    let env: Vec<_> =
        settings.iter().map(|(key, value)| (format!("CHAPAR__{key}"), (*value).into())).collect();
    let mut process = Process::start(&built_binary(), args, folder.path(), &env);
    (process.wait(), process.log())
}

/// Returns `target/<profile>/chapar`, beside the folder from which the tests run.
fn built_binary() -> PathBuf {
    let tests = std::env::current_exe().expect("the path of the test binary is known");
    let profile = tests.ancestors().nth(2).expect("the tests run from target/<profile>/deps");
    let binary = profile.join("chapar");
    assert!(
        binary.is_file(),
        "{} does not exist: run cargo build -p messaging-api first",
        binary.display()
    );
    binary
}
