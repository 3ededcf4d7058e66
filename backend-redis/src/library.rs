//! The functions that run in the server.
//!
//! The sources are Lua with two additions, both replaced before the server sees them, so they cost
//! nothing in a call: expressions in double braces become Lua code, see [`state_fields`], and the
//! names of the constants of [`constants`] and [`crate::keys`] become literals.

pub(crate) mod constants;
mod state_fields;

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use md5::{Digest as _, Md5};

use self::state_fields::{Field, STATE_FIELDS, expand};
use crate::keys;

/// The sources: each uses functions of those before it.
const SOURCES: [&str; 15] = [
    include_str!("lua/state.lua"),
    include_str!("lua/message.lua"),
    include_str!("lua/ordering.lua"),
    include_str!("lua/delivery.lua"),
    include_str!("lua/enqueue.lua"),
    include_str!("lua/deferred_claims.lua"),
    include_str!("lua/due.lua"),
    include_str!("lua/claim_source.lua"),
    include_str!("lua/claims.lua"),
    include_str!("lua/acknowledge.lua"),
    include_str!("lua/messages.lua"),
    include_str!("lua/groups.lua"),
    include_str!("lua/redrive.lua"),
    include_str!("lua/maintenance.lua"),
    include_str!("lua/register.lua"),
];

/// Stands for the prefix of the functions' names, which depends on the rest of the source.
const FUNCTION_PREFIX: &str = "FUNCTION_PREFIX";

/// A library of functions. Its name depends on its source, so nodes of two versions can use one
/// server.
pub(crate) struct Library {
    prefix: String,
    /// Argument of `FUNCTION LOAD`.
    pub(crate) code: String,
}

pub(crate) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let source = render(&SOURCES.concat(), &STATE_FIELDS)
        .expect("a test renders the same source with the same fields");
    let mut version = String::new();
    for byte in &Md5::digest(&source)[..5] {
        // Writing to a string cannot fail.
        let _ = write!(version, "{byte:02x}");
    }
    let prefix = format!("chapar_{version}_");
    let source = source.replace(FUNCTION_PREFIX, &format!("'{prefix}'"));
    Library { prefix, code: format!("#!lua name=chapar_{version}\n{source}") }
});

impl Library {
    /// Returns the full name of a function.
    pub(crate) fn name(&self, function: &str) -> String {
        format!("{}{function}", self.prefix)
    }
}

/// Replaces the expressions in double braces, then the constants.
fn render(source: &str, fields: &[Field]) -> Result<String, String> {
    let constants: HashMap<_, _> = constants::as_lua().into_iter().chain(keys::as_lua()).collect();
    let expanded = expand(source, fields)?;
    let mut rendered = String::with_capacity(expanded.len());
    let mut rest = &expanded[..];
    while let Some(start) = rest.find(is_in_name) {
        let end =
            rest[start..].find(|c| !is_in_name(c)).map_or(rest.len(), |length| start + length);
        let name = &rest[start..end];
        rendered.push_str(&rest[..start]);
        rendered.push_str(constants.get(name).map_or(name, String::as_str));
        rest = &rest[end..];
    }
    rendered.push_str(rest);
    Ok(rendered)
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Returns the names in capitals that a source uses outside comments and literals.
    fn names_in_capitals(source: &str) -> HashSet<&str> {
        let code = source.lines().map(|line| line.split("--").next().unwrap_or_default());
        let outside_literals = code.flat_map(|line| line.split('\'').step_by(2));
        let names = outside_literals.flat_map(|code| code.split(|c| !is_in_name(c)));
        let is_constant = |name: &&str| {
            name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        names.filter(is_constant).collect()
    }

    #[test]
    fn every_constant_of_the_source_is_defined() {
        let source = render(&SOURCES.concat(), &STATE_FIELDS).unwrap();
        let declared: HashSet<_> = source
            .lines()
            .filter_map(|line| line.strip_prefix("local "))
            .flat_map(|line| line.split('=').next().unwrap_or_default().split(", "))
            .map(str::trim)
            .collect();
        let mut undefined = names_in_capitals(&source);
        undefined.retain(|name| *name != FUNCTION_PREFIX && !declared.contains(name));
        assert!(undefined.is_empty(), "{undefined:?}");
    }

    #[test]
    fn constants_become_literals_and_longer_names_stay() {
        let rendered =
            render("x(KEY_READY, KEY_READY_X, NEVER) -- it's {{names last..fresh}}", &STATE_FIELDS);
        assert_eq!(
            rendered.unwrap(),
            "x(':ready', KEY_READY_X, 281474976710655) -- it's last, ready, fresh"
        );
    }

    #[test]
    fn the_name_of_a_function_has_the_version_of_the_library() {
        let prefix = LIBRARY.name("");
        assert!(LIBRARY.code.contains(&format!("function_name = '{prefix}'")));
        assert!(
            LIBRARY.code.starts_with(&format!("#!lua name={}\n", prefix.trim_end_matches('_')))
        );
        assert!(!LIBRARY.code.contains(FUNCTION_PREFIX));
    }
}
