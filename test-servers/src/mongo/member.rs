//! One `mongod` process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, doc};
use tempfile::TempDir;

use super::wire::Connection;
use crate::process::{self, Process};
use crate::wait::{self, check};
use crate::{certificates, folder::temporary_folder};

/// Where `scripts/test.sh` puts the program, relative to the root of the workspace.
const DOWNLOADED: &str = ".servers/mongod-6.0.5/mongod";

/// How many ports are tried before giving up, if other processes take them.
const ATTEMPTS: usize = 10;

/// The name of the replica set.
pub(super) const SET: &str = "rs";

/// Options of every server. The log goes to stdout and is short. Journal files are not
/// preallocated: they would take 200 MB.
const COMMON: &[&str] = &[
    "--bind_ip=127.0.0.1",
    "--wiredTigerCacheSizeGB=0.25",
    "--wiredTigerEngineConfigString=log=(prealloc=false)",
    "--setParameter=diagnosticDataCollectionEnabled=false",
    "--setParameter=enableTestCommands=1",
    "--setParameter=ttlMonitorSleepSecs=1",
    "--quiet",
];

/// Options of a member of a set. A member whose sync source does not answer gives it up in two
/// seconds instead of ten.
const IN_SET: &[&str] =
    &["--replSet=rs", "--oplogSize=128", "--setParameter=oplogNetworkTimeoutBufferSeconds=1"];

/// Options of a secured server. It requires no client certificate. The key file turns on
/// authentication.
const SECURED: &[&str] = &[
    "--tlsMode=requireTLS",
    "--tlsCAFile=authority.pem",
    "--tlsCertificateKeyFile=both.pem",
    "--tlsAllowConnectionsWithoutCertificates",
    "--keyFile=key",
];

/// The role of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Standalone,
    InSet,
    /// A member of a set, with TLS and a password.
    Secured,
}

/// One mongod. Dropping it kills the process and removes its files.
pub(super) struct Member {
    // Declared first, so that the process ends before its files are removed.
    process: Option<Process>,
    paused: AtomicBool,
    args: Vec<String>,
    port: u16,
    tls: bool,
    folder: TempDir,
}

impl Member {
    /// Starts a server. Tries further ports while another process has the one it was given.
    pub(super) fn launch(role: Role, options: &[&str], mut port: impl FnMut() -> u16) -> Self {
        for _ in 0..ATTEMPTS {
            let mut member = Self::set_up(role, options, port());
            if member.boot() {
                return member;
            }
        }
        panic!("mongod found its port in use {ATTEMPTS} times");
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address that clients and other members use.
    pub(super) fn address(&self) -> String {
        let host = if self.tls { "localhost" } else { "127.0.0.1" };
        format!("{host}:{}", self.port)
    }

    /// Returns the file with the CA certificate (PEM) that signed the server's, if it uses TLS.
    pub(super) fn authority(&self) -> Option<PathBuf> {
        self.tls.then(|| certificates::authority(self.folder.path()))
    }

    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Restarts the server with the same port, files and options, and kills it before if it is
    /// running. Returns when it answers.
    pub(super) fn restart(&mut self) {
        self.kill();
        assert!(self.boot(), "the port is in use:\n{}", self.log());
    }

    pub(super) fn pause(&self) {
        self.process.as_ref().expect("the server was not killed").pause();
        self.paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        self.process.as_ref().expect("the server was not killed").resume();
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Returns whether it was neither killed nor paused.
    pub(super) fn is_live(&self) -> bool {
        self.process.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Sends a command on a new connection. Returns errors of the server and of the connection.
    pub(super) fn command(&self, database: &str, command: &Document) -> Result<Document, String> {
        let authority = self.authority();
        let reply = Connection::open(&self.socket(), authority.as_deref())
            .and_then(|mut connection| connection.send(database, command));
        let reply =
            reply.map_err(|error| format!("{} cannot be reached: {error}", self.address()))?;
        let succeeded = reply.get("ok") == Some(&Bson::Double(1.0));
        check(succeeded, || format!("{} replied {reply}", self.address()))?;
        Ok(reply)
    }

    /// Returns the reply to `hello`, which needs no authentication.
    pub(super) fn hello(&self) -> Result<Document, String> {
        self.command("admin", &doc! { "hello": 1 })
    }

    /// Returns the end of its log, with its port as the title.
    pub(super) fn log(&self) -> String {
        let log = process::end_of_log(&log(self.folder.path()));
        format!("--- log of the server at port {} ---\n{log}\n", self.port)
    }

    fn set_up(role: Role, options: &[&str], port: u16) -> Self {
        let folder = temporary_folder();
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

    /// Starts the process and waits until it answers. Returns `false` if its port is in use.
    fn boot(&mut self) -> bool {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace");
        let program = program(root, "mongod");
        let (path, log) = (self.folder.path(), log(self.folder.path()));
        let mut process = Process::start(&program, &self.args, path, &log);
        let attempt = || {
            if process.exit_status().is_some() {
                let end = process::end_of_log(&log);
                assert!(end.contains("Address already in use"), "mongod ended:\n{end}");
                return Ok(false);
            }
            // The socket is opened after the port. Only this server can answer on it.
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

/// Creates the files of a secured server. mongod needs its certificate and key in one file, and a
/// key file for its set that only its user can read.
fn make_secrets(folder: &Path) {
    certificates::make(folder);
    let read = |name| fs::read(folder.join(name)).expect("it was made");
    let both = [read("server.pem"), read("server.key")].concat();
    fs::write(folder.join("both.pem"), both).expect("the folder is writable");
    let key = folder.join("key");
    fs::write(&key, "a key for one member").expect("the folder is writable");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("the file is ours");
}

/// Returns the path of the program: the downloaded one, or that in the search path.
fn program(root: &Path, name: &str) -> PathBuf {
    let downloaded = root.join(DOWNLOADED).with_file_name(name);
    let found = Some(downloaded).filter(|it| it.is_file()).or_else(|| process::find(name));
    found.unwrap_or_else(|| panic!("{name} is missing: run scripts/test.sh, which downloads it"))
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::net::TcpListener;

    use super::*;
    use crate::ports::free_port;

    #[test]
    fn a_port_in_use_is_skipped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let mut offered = iter::once(taken).chain(iter::repeat_with(free_port));
        let member = Member::launch(Role::Standalone, &[], || offered.next().unwrap());
        assert_ne!(member.port(), taken);
        assert!(member.hello().is_ok());
    }

    #[test]
    #[should_panic(expected = "no-such-mongod is missing: run scripts/test.sh, which downloads it")]
    fn a_missing_program_is_reported_with_the_script_that_downloads_it() {
        program(temporary_folder().path(), "no-such-mongod");
    }

    #[test]
    fn the_downloaded_program_comes_first() {
        let root = temporary_folder();
        let downloaded = root.path().join(DOWNLOADED);
        fs::create_dir_all(downloaded.parent().unwrap()).unwrap();
        fs::write(&downloaded, "").unwrap();
        assert_eq!(program(root.path(), "mongod"), downloaded);
    }
}
