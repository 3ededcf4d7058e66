//! One server process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, doc};
use tempfile::TempDir;

use super::wire::Connection;
use crate::process::{self, Process};
use crate::wait::{self, check};
use crate::{certificates, folder};

/// Where `scripts/test.sh` puts the server, from the root of the workspace.
const FETCHED: &str = ".servers/mongod-6.0.5/mongod";

/// How often a server may find that another process took its port.
const ATTEMPTS: usize = 10;

/// The name of the replica set.
pub(super) const SET: &str = "rs";

/// What every server is told. The log goes to where the process writes, in few words. No files are
/// made ahead of their use: they would take 200 MB.
const COMMON: &[&str] = &[
    "--bind_ip=127.0.0.1",
    "--wiredTigerCacheSizeGB=0.25",
    "--wiredTigerEngineConfigString=log=(prealloc=false)",
    "--setParameter=diagnosticDataCollectionEnabled=false",
    "--setParameter=enableTestCommands=1",
    "--setParameter=ttlMonitorSleepSecs=1",
    "--quiet",
];

/// One that copies from a member which stands still gives it up in two seconds, not in ten.
const IN_SET: &[&str] =
    &["--replSet=rs", "--oplogSize=128", "--setParameter=oplogNetworkTimeoutBufferSeconds=1"];

/// It asks for no certificate of its clients. The key file turns on authentication.
const SECURED: &[&str] = &[
    "--tlsMode=requireTLS",
    "--tlsCAFile=authority.pem",
    "--tlsCertificateKeyFile=both.pem",
    "--tlsAllowConnectionsWithoutCertificates",
    "--keyFile=key",
];

/// What a server is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Standalone,
    InSet,
    /// In a set, with TLS and a password.
    Secured,
}

/// One mongod; it ends with the value, and its files are removed.
pub(super) struct Member {
    // Declared first, so that the process is gone before its files.
    process: Option<Process>,
    paused: AtomicBool,
    args: Vec<String>,
    port: u16,
    tls: bool,
    folder: TempDir,
}

impl Member {
    /// Starts a server, and tries other ports while those at hand are taken.
    pub(super) fn launch(role: Role, options: &[&str], mut port: impl FnMut() -> u16) -> Self {
        for _ in 0..ATTEMPTS {
            let mut member = Self::set_up(role, options, port());
            if member.boot() {
                return member;
            }
        }
        panic!("mongod found its port taken {ATTEMPTS} times");
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it is called by clients and by the other members.
    pub(super) fn address(&self) -> String {
        let host = if self.tls { "localhost" } else { "127.0.0.1" };
        format!("{host}:{}", self.port)
    }

    /// The certificate (PEM) of the authority that signed the server's, if it speaks TLS.
    pub(super) fn authority(&self) -> Option<PathBuf> {
        self.tls.then(|| certificates::authority(self.folder.path()))
    }

    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again with the same port, files and options, after a kill if it runs.
    /// Returns when it answers.
    pub(super) fn restart(&mut self) {
        self.kill();
        assert!(self.boot(), "the port was taken meanwhile:\n{}", self.log());
    }

    pub(super) fn pause(&self) {
        self.process.as_ref().expect("the server was not killed").pause();
        self.paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        self.process.as_ref().expect("the server was not killed").resume();
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Whether it was neither killed nor paused.
    pub(super) fn is_live(&self) -> bool {
        self.process.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Sends a command on a connection of its own. An error is one of the server's, or of the
    /// connection.
    pub(super) fn command(&self, database: &str, command: &Document) -> Result<Document, String> {
        let authority = self.authority();
        let answer = Connection::open(&self.socket(), authority.as_deref())
            .and_then(|mut connection| connection.send(database, command));
        let answer =
            answer.map_err(|error| format!("{} cannot be asked: {error}", self.address()))?;
        let succeeded = answer.get("ok") == Some(&Bson::Double(1.0));
        check(succeeded, || format!("{} answers {answer}", self.address()))?;
        Ok(answer)
    }

    /// What it says of itself; anybody may ask that.
    pub(super) fn hello(&self) -> Result<Document, String> {
        self.command("admin", &doc! { "hello": 1 })
    }

    /// The end of what it wrote, under its port.
    pub(super) fn log(&self) -> String {
        let log = process::end_of_log(&log(self.folder.path()));
        format!("--- log of the server at port {} ---\n{log}\n", self.port)
    }

    fn set_up(role: Role, options: &[&str], port: u16) -> Self {
        let folder = folder::new();
        let path = folder.path();
        let data = path.join("data");
        fs::create_dir(&data).expect("the folder is writable");
        if role == Role::Secured {
            make_secrets(path);
        }
        let mut args = vec![
            format!("--dbpath={}", data.display()),
            format!("--unixSocketPrefix={}", path.display()),
            format!("--port={port}"),
        ];
        args.extend(role.options().iter().chain(options).map(|&word| word.to_owned()));
        let tls = role == Role::Secured;
        Self { process: None, paused: AtomicBool::new(false), args, port, tls, folder }
    }

    /// Starts the process and waits until it answers; `false` when its port is taken.
    fn boot(&mut self) -> bool {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace is around us");
        let program = program(root, "mongod");
        let (path, log) = (self.folder.path(), log(self.folder.path()));
        let mut process = Process::start(&program, &self.args, path, &log);
        let attempt = || {
            if process.has_ended() {
                let end = process::end_of_log(&log);
                assert!(end.contains("Address already in use"), "mongod ended:\n{end}");
                return Ok(false);
            }
            // The socket is opened after the port, and is nobody else's.
            self.hello().map(|_| true)
        };
        let ready = wait::until("mongod answers", attempt, || self.log());
        self.process = ready.then_some(process);
        self.paused = AtomicBool::new(false);
        ready
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(format!("mongodb-{}.sock", self.port))
    }
}

impl Role {
    fn options(self) -> Vec<&'static str> {
        match self {
            Self::Standalone => COMMON.to_vec(),
            Self::InSet => [COMMON, IN_SET].concat(),
            Self::Secured => [COMMON, IN_SET, SECURED].concat(),
        }
    }
}

/// The server wants its certificate and key in one file, and a key for its set that nobody else
/// can read.
fn make_secrets(folder: &Path) {
    certificates::make(folder);
    let read = |name| fs::read(folder.join(name)).expect("it was made");
    let both = [read("server.pem"), read("server.key")].concat();
    fs::write(folder.join("both.pem"), both).expect("the folder is writable");
    let key = folder.join("key");
    fs::write(&key, "a key for one member").expect("the folder is writable");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("the file is ours");
}

/// Where the server is: fetched, or in the search path.
fn program(root: &Path, name: &str) -> PathBuf {
    let fetched = root.join(FETCHED).with_file_name(name);
    let found = Some(fetched).filter(|it| it.is_file()).or_else(|| process::find(name));
    found.unwrap_or_else(|| panic!("{name} is missing: run scripts/test.sh, which fetches it"))
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::net::TcpListener;

    use super::*;
    use crate::ports;

    #[test]
    fn a_taken_port_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let mut offered = iter::once(taken).chain(iter::repeat_with(ports::free));
        let member = Member::launch(Role::Standalone, &[], || offered.next().unwrap());
        assert_ne!(member.port(), taken);
        assert!(member.hello().is_ok());
    }

    #[test]
    #[should_panic(expected = "no-such-mongod is missing: run scripts/test.sh, which fetches it")]
    fn a_missing_server_names_the_script_that_fetches_it() {
        program(folder::new().path(), "no-such-mongod");
    }

    #[test]
    fn the_fetched_server_comes_first() {
        let root = folder::new();
        let fetched = root.path().join(FETCHED);
        fs::create_dir_all(fetched.parent().unwrap()).unwrap();
        fs::write(&fetched, "").unwrap();
        assert_eq!(program(root.path(), "mongod"), fetched);
    }
}
