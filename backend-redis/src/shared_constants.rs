//! Constants that the node and its Lua functions share, each defined once.

use std::fmt::Write as _;

/// A value that can be written as a Lua literal.
pub(crate) trait ToLua {
    /// Returns the literal.
    fn to_lua(self) -> String;
}

impl ToLua for i64 {
    fn to_lua(self) -> String {
        self.to_string()
    }
}

impl ToLua for u8 {
    fn to_lua(self) -> String {
        self.to_string()
    }
}

impl ToLua for &str {
    fn to_lua(self) -> String {
        let mut literal = String::from("'");
        for c in self.chars() {
            match c {
                '\'' | '\\' => literal.extend(['\\', c]),
                // Three digits, so that a digit that follows is not read as part of the escape.
                c if c.is_ascii_control() => {
                    // Writing to a string cannot fail.
                    let _ = write!(literal, "\\{:03}", u32::from(c));
                }
                c => literal.push(c),
            }
        }
        literal.push('\'');
        literal
    }
}

/// Defines constants, and the function `as_lua` that returns their names and Lua literals.
macro_rules! shared_constants {
    ($($(#[$attribute:meta])* $name:ident: $kind:ty = $value:expr;)*) => {
        $($(#[$attribute])* pub(crate) const $name: $kind = $value;)*

        /// Returns the names of these constants and their values as Lua literals.
        pub(crate) fn as_lua() -> Vec<(&'static str, String)> {
            vec![$((stringify!($name), $crate::shared_constants::ToLua::to_lua($name))),*]
        }
    };
}

pub(crate) use shared_constants;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_escaped() {
        assert_eq!("a'b\\c".to_lua(), r"'a\'b\\c'");
        assert_eq!("\0".to_lua(), r"'\000'");
        assert_eq!((-1_i64).to_lua(), "-1");
    }
}
