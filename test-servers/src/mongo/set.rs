//! Servers that work together.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;

use bson::{Document, doc};

use super::member::{Member, Role, SET};
use crate::ports;
use crate::wait::{self, check};

/// After how long without a primary the others elect one, and how often members look for each
/// other, in milliseconds.
const ELECTION_TIMEOUT: i32 = 2000;
const HEARTBEAT_INTERVAL: i32 = 500;

/// For how many seconds a primary that stepped down is none again, and how long it waits before
/// for the others to be in step. Alone it cannot wait, and is the only one to come back.
const STAND_ASIDE: i32 = 10;
const STAND_ASIDE_ALONE: i32 = 1;

/// The user of the secured server.
const USER: &str = "chapar";
const PASSWORD: &str = "p@ss:w/rd%";
const PASSWORD_IN_URI: &str = "p%40ss%3Aw%2Frd%25";

/// One server alone, or the members of a replica set. They are numbered from 0, in the order of
/// their start, and end with the value.
///
/// Something that is past its TTL is deleted within two seconds, and `configureFailPoint` is
/// there.
pub struct Mongo {
    members: Vec<Member>,
    role: Role,
}

impl Mongo {
    /// Starts one server without a replica set. The options are those of its command line, which
    /// takes none twice: those that are set already are in `member.rs`.
    pub fn standalone(options: &[&str]) -> Self {
        let member = Member::launch(Role::Standalone, options, ports::free);
        Self { members: vec![member], role: Role::Standalone }
    }

    /// Starts a replica set in which a new primary is elected after two seconds without one; the
    /// options are for every member. Returns when it [is whole](Self::wait_until_whole).
    pub fn replica_set(members: usize, options: &[&str]) -> Self {
        let launch = || Member::launch(Role::InSet, options, ports::free);
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

    /// Starts a replica set of one member that speaks TLS alone, with a certificate for
    /// `localhost` and `127.0.0.1`, and takes commands from one user, who may do everything. The
    /// password is in the [URI](Self::uri), where some of its characters are escaped.
    pub fn secured() -> Self {
        let member = Member::launch(Role::Secured, &[], ports::free);
        let set = Self { members: vec![member], role: Role::Secured };
        set.initiate();
        // Until there is a user, one who comes from this machine may make it.
        let user = doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] };
        set.command_on(0, "admin", &user);
        set
    }

    /// `mongodb://127.0.0.1:PORT/`, or `mongodb://127.0.0.1:P1,127.0.0.1:P2,127.0.0.1:P3/` and
    /// `?replicaSet=rs`. That of the secured server has the user, the password and the file with
    /// the certificate of the authority.
    pub fn uri(&self) -> String {
        self.uri_of("")
    }

    /// The URI, with a database in its path.
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

    /// The certificate (PEM) of the authority that signed that of the secured server.
    pub fn ca_file(&self) -> PathBuf {
        self.members[0].authority().expect("the server was started without TLS")
    }

    /// How many there are, dead or alive.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn port(&self, member: usize) -> u16 {
        self.members[member].port()
    }

    /// The member that takes writes, once all that were neither killed nor paused agree on it. A
    /// server alone is its own primary.
    pub fn primary(&self) -> usize {
        wait::until("the members agree", || self.elected(), || self.logs())
    }

    /// Waits until there is a primary, and all others copy what is written. A member that was
    /// killed has to be started again before, and one that was paused resumed.
    pub fn wait_until_whole(&self) {
        wait::until("the members work together", || self.is_whole(), || self.logs());
    }

    /// SIGKILL; returns when the process is gone. Nothing happens if it is gone already.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member again with the same port and files, after a kill if it runs. Returns when
    /// it is a primary or a secondary; there may be no primary yet.
    pub fn start(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.restart();
        let attempt = || {
            let hello = member.hello()?;
            check(is_primary(&hello) || is_secondary(&hello), || hello.to_string())
        };
        wait::until("the member is back", attempt, || member.log());
    }

    /// SIGSTOP: the member keeps its connections and answers nothing.
    pub fn pause(&self, member: usize) {
        self.members[member].pause();
    }

    /// SIGCONT. For a moment, an old primary still takes itself for the primary.
    pub fn resume(&self, member: usize) {
        self.members[member].resume();
    }

    /// Lets the primary step down for ten seconds, in which another member is elected; one that is
    /// alone comes back after a second. Returns who it was, as soon as it takes no more writes.
    pub fn step_down(&self) -> usize {
        let old = self.primary();
        let alone = self.members.len() == 1;
        let (period, wait) =
            if alone { (STAND_ASIDE_ALONE, 0) } else { (STAND_ASIDE, STAND_ASIDE) };
        let command = doc! {
            "replSetStepDown": period,
            "secondaryCatchUpPeriodSecs": wait,
            "force": alone,
        };
        self.command_on(old, "admin", &command);
        old
    }

    /// Sends a command to a member, primary or not, on a connection of its own, and returns the
    /// answer. An error is a panic, but what an answer that is `ok` says of single documents is
    /// left to the caller. Nobody is logged in, so the secured server refuses most.
    pub fn command_on(&self, member: usize, database: &str, command: &Document) -> Document {
        let answer = self.try_command_on(member, database, command);
        answer.unwrap_or_else(|error| panic!("{command}: {error}\n{}", self.members[member].log()))
    }

    /// Like [`command_on`](Self::command_on), with the error as a value: one of the server's, or
    /// of the connection.
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
            // One alone is elected at once. Others would wait for the time of an election.
            if self.members.len() > 1 && self.elected().is_err() {
                self.try_command_on(0, "admin", &doc! { "replSetStepUp": 1 })?;
            }
            self.is_whole()
        };
        wait::until("the members work together", attempt, || self.logs());
    }

    /// Whether all others copy from somebody. If the one that a member chose stands still before
    /// they are connected, it is given up only after 20 seconds.
    fn is_whole(&self) -> Result<(), String> {
        let primary = self.elected()?;
        let others = self.members.iter().enumerate().filter(|&(number, _)| number != primary);
        for (_, member) in others {
            let hello = member.hello()?;
            check(is_secondary(&hello), || format!("{} says {hello}", member.address()))?;
            let status = member.command("admin", &doc! { "replSetGetStatus": 1 })?;
            if status.get_str("syncSourceHost").unwrap_or_default().is_empty() {
                // Nobody copies from one that has nothing new.
                let note = doc! { "appendOplogNote": 1, "data": {} };
                self.members[primary].command("admin", &note)?;
                return Err(format!("{} copies from nobody", member.address()));
            }
        }
        Ok(())
    }

    /// The primary that all live members name. One that names none has itself in mind, which is
    /// right if it is alone.
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
