//! The functions that run in the server.

use std::{fmt::Write as _, sync::LazyLock};

use md5::{Digest as _, Md5};

/// In the order in which one builds on those before.
const PARTS: [&str; 9] = [
    include_str!("lua/state.lua"),
    include_str!("lua/message.lua"),
    include_str!("lua/settle.lua"),
    include_str!("lua/claims.lua"),
    include_str!("lua/messages.lua"),
    include_str!("lua/groups.lua"),
    include_str!("lua/letters.lua"),
    include_str!("lua/maintenance.lua"),
    include_str!("lua/register.lua"),
];

/// A library of functions, under a name of its own for each version, so that nodes of two versions
/// can work side by side.
pub(crate) struct Library {
    /// What the names of its functions begin with.
    prefix: String,
    /// What `FUNCTION LOAD` takes.
    pub(crate) code: String,
}

pub(crate) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let text = PARTS.concat();
    let mut version = String::new();
    for byte in &Md5::digest(&text)[..5] {
        // A string takes whatever it is given.
        let _ = write!(version, "{byte:02x}");
    }
    let text = text.replace("VERSION", &version);
    Library {
        prefix: format!("chapar_{version}_"),
        code: format!("#!lua name=chapar_{version}\n{text}"),
    }
});

impl Library {
    /// The whole name of a function.
    pub(crate) fn name(&self, function: &str) -> String {
        format!("{}{function}", self.prefix)
    }
}
