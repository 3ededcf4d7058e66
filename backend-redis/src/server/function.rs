//! Calls of the functions that run in the server.

use redis::Cmd;

use crate::library::LIBRARY;

/// A call of a function, with its keys and arguments.
pub(crate) struct Function(pub(super) Cmd);

impl Function {
    /// Creates a call without arguments.
    pub(crate) fn new(name: &str, keys: &[&str]) -> Self {
        let mut command = Cmd::new();
        command.arg("FCALL").arg(LIBRARY.name(name)).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        Self(command)
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.0.arg(number);
        self
    }

    /// Adds text or bytes.
    pub(crate) fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.arg(bytes.as_ref());
        self
    }
}
