//! Standalone servers and replica sets.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;

use bson::{Document, doc};

use super::member::{Member, Role, SET};
use crate::ports::free_port;
use crate::wait::{self, check};

/// Time without a primary until the other members elect one, and the period of heartbeats, in
/// milliseconds.
const ELECTION_TIMEOUT: i32 = 2000;
const HEARTBEAT_INTERVAL: i32 = 500;

/// For how many seconds a primary that stepped down cannot be elected, and how long it waits before
/// for the secondaries to catch up. A set of one cannot wait, and elects its only member again.
const STEP_DOWN: i32 = 10;
const STEP_DOWN_ALONE: i32 = 1;

/// The user of the secured server.
const USER: &str = "chapar";
const PASSWORD: &str = "p@ss:w/rd%";
const PASSWORD_IN_URI: &str = "p%40ss%3Aw%2Frd%25";

/// A standalone server, or a replica set. Members are numbered from 0 in the order of their start.
/// Dropping the value kills them.
///
/// Expired documents are deleted within two seconds, and `configureFailPoint` is enabled.
pub struct Mongo {
    members: Vec<Member>,
    role: Role,
}

impl Mongo {
    /// Starts a standalone server. `options` are command-line options. mongod accepts none twice,
    /// so they cannot override those in `member.rs`.
    pub fn standalone(options: &[&str]) -> Self {
        let member = Member::launch(Role::Standalone, options, free_port);
        Self { members: vec![member], role: Role::Standalone }
    }

    /// Starts a replica set that elects a new primary after two seconds without one. `options` are
    /// for every member. Returns when the set [is whole](Self::wait_until_whole).
    pub fn replica_set(members: usize, options: &[&str]) -> Self {
        let launch = || Member::launch(Role::InSet, options, free_port);
        let members = thread::scope(|scope| {
            let starts: Vec<_> = (0..members).map(|_| scope.spawn(launch)).collect();
            starts
                .into_iter()
                .map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        let set = Self { members, role: Role::InSet };
        set.initiate();
        set
    }

    /// Starts a replica set of one member that accepts only TLS, with a certificate for `localhost`
    /// and `127.0.0.1`, and has one user with the role `root`. The password is in the
    /// [URI](Self::uri), where some of its characters are escaped.
    pub fn secured() -> Self {
        let member = Member::launch(Role::Secured, &[], free_port);
        let set = Self { members: vec![member], role: Role::Secured };
        set.initiate();
        // As long as there is no user, a client on the same machine may create one.
        let user = doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] };
        set.command_on(0, "admin", &user);
        set
    }

    /// Returns `mongodb://127.0.0.1:PORT/`, or `mongodb://127.0.0.1:P1,127.0.0.1:P2,127.0.0.1:P3/`
    /// and `?replicaSet=rs`. That of a secured server contains the user, the password and the file
    /// with the CA certificate.
    pub fn uri(&self) -> String {
        self.uri_of("")
    }

    /// Returns the URI with a database in its path.
    pub fn uri_of(&self, database: &str) -> String {
        let addresses: Vec<_> = self.members.iter().map(Member::address).collect();
        let hosts = addresses.join(",");
        match self.role {
            Role::Standalone => format!("mongodb://{hosts}/{database}"),
            Role::InSet => format!("mongodb://{hosts}/{database}?replicaSet={SET}"),
            Role::Secured => format!(
                "mongodb://{USER}:{PASSWORD_IN_URI}@{hosts}/{database}?replicaSet={SET}\
                 &authSource=admin&tls=true&tlsCAFile={}",
                self.ca_file().display()
            ),
        }
    }

    /// Returns the file with the CA certificate (PEM) that signed the secured server's.
    pub fn ca_file(&self) -> PathBuf {
        self.members[0].authority().expect("the server was started without TLS")
    }

    /// Returns the number of members, running or not.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn port(&self, member: usize) -> u16 {
        self.members[member].port()
    }

    /// Returns the member that accepts writes, once all members that were neither killed nor paused
    /// agree on it. A standalone server is its own primary.
    pub fn primary(&self) -> usize {
        wait::until("the members agree", || self.elected(), || self.logs())
    }

    /// Waits until there is a primary and all other members replicate from it or from each other.
    /// Killed members must be started and paused ones resumed before.
    pub fn wait_until_whole(&self) {
        wait::until("the members work together", || self.is_whole(), || self.logs());
    }

    /// Kills a member with SIGKILL and returns when the process is gone. Does nothing if it is not
    /// running.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Restarts a member with the same port and files, and kills it before if it is running.
    /// Returns when it is a primary or a secondary; the set may not have a primary yet.
    pub fn start(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.restart();
        let attempt = || {
            let hello = member.hello()?;
            check(is_primary(&hello) || is_secondary(&hello), || hello.to_string())
        };
        wait::until("the member is a primary or a secondary", attempt, || member.log());
    }

    /// Stops a member with SIGSTOP: it keeps its connections but does not answer.
    pub fn pause(&self, member: usize) {
        self.members[member].pause();
    }

    /// Resumes a member with SIGCONT. An old primary still acts as the primary for a moment.
    pub fn resume(&self, member: usize) {
        self.members[member].resume();
    }

    /// Makes the primary step down for ten seconds, in which another member is elected. The only
    /// member of a set can be elected again after one second. Returns the old primary as soon as it
    /// accepts no more writes.
    pub fn step_down(&self) -> usize {
        let old = self.primary();
        let alone = self.members.len() == 1;
        let (period, wait) = if alone { (STEP_DOWN_ALONE, 0) } else { (STEP_DOWN, STEP_DOWN) };
        let command = doc! {
            "replSetStepDown": period,
            "secondaryCatchUpPeriodSecs": wait,
            "force": alone,
        };
        self.command_on(old, "admin", &command);
        old
    }

    /// Sends a command to a member, primary or not, on a new connection, and returns the reply.
    /// Panics on an error, but does not look for write errors of single documents in a reply that
    /// is `ok`. The connection is not authenticated, so a secured server rejects most commands.
    pub fn command_on(&self, member: usize, database: &str, command: &Document) -> Document {
        let reply = self.try_command_on(member, database, command);
        reply.unwrap_or_else(|error| panic!("{command}: {error}\n{}", self.members[member].log()))
    }

    /// Like [`command_on`](Self::command_on), but returns errors of the server or the connection.
    pub fn try_command_on(
        &self,
        member: usize,
        database: &str,
        command: &Document,
    ) -> Result<Document, String> {
        self.members[member].command(database, command)
    }

    fn initiate(&self) {
        let member = |(id, it): (i32, &Member)| doc! { "_id": id, "host": it.address() };
        let members: Vec<_> = (0..).zip(&self.members).map(member).collect();
        let settings = doc! {
            "electionTimeoutMillis": ELECTION_TIMEOUT,
            "heartbeatIntervalMillis": HEARTBEAT_INTERVAL,
        };
        let config = doc! { "_id": SET, "members": members, "settings": settings };
        self.command_on(0, "admin", &doc! { "replSetInitiate": config });
        let attempt = || {
            // A single member is elected at once. Several would wait for the election timeout.
            if self.members.len() > 1 && self.elected().is_err() {
                self.try_command_on(0, "admin", &doc! { "replSetStepUp": 1 })?;
            }
            self.is_whole()
        };
        wait::until("the members work together", attempt, || self.logs());
    }

    /// Checks that all secondaries have a sync source. A member gives up a sync source that stops
    /// before they are connected only after 20 seconds.
    fn is_whole(&self) -> Result<(), String> {
        let primary = self.elected()?;
        let others = self.members.iter().enumerate().filter(|&(number, _)| number != primary);
        for (_, member) in others {
            let hello = member.hello()?;
            check(is_secondary(&hello), || format!("{} reports {hello}", member.address()))?;
            let status = member.command("admin", &doc! { "replSetGetStatus": 1 })?;
            if status.get_str("syncSourceHost").unwrap_or_default().is_empty() {
                // A member chooses no sync source that has nothing new.
                let note = doc! { "appendOplogNote": 1, "data": {} };
                self.members[primary].command("admin", &note)?;
                return Err(format!("{} has no sync source", member.address()));
            }
        }
        Ok(())
    }

    /// Returns the primary if all live members name the same one. A standalone server names none
    /// and is taken to name itself.
    fn elected(&self) -> Result<usize, String> {
        let (mut named, mut primaries) = (Vec::new(), Vec::new());
        for (number, member) in self.members.iter().enumerate().filter(|(_, it)| it.is_live()) {
            let hello = member.hello()?;
            named.push(hello.get_str("primary").map_or_else(|_| member.address(), str::to_owned));
            if is_primary(&hello) {
                primaries.push(number);
            }
        }
        match primaries[..] {
            [one] if named.iter().all(|it| *it == self.members[one].address()) => Ok(one),
            _ => Err(format!("{primaries:?} are primaries, the members name {named:?}")),
        }
    }

    fn logs(&self) -> String {
        self.members.iter().map(Member::log).collect()
    }
}

fn is_primary(hello: &Document) -> bool {
    hello.get_bool("isWritablePrimary").unwrap_or(false)
}

fn is_secondary(hello: &Document) -> bool {
    hello.get_bool("secondary").unwrap_or(false)
}
