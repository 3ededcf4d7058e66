use std::{fmt, str::FromStr, sync::Arc};

/// Error of parsing a text that is not a valid name. The message states the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A queue name is empty, too long, or contains a character that is not allowed.
    #[error("a queue name has 1 to 64 of the characters A-Z a-z 0-9 _ - .")]
    Queue,
    /// A project id is empty, too long, or contains a control character.
    #[error("a project id has 1 to 256 characters, none of them a control character")]
    Project,
    /// A deduplication id is empty, too long, or contains a control character.
    #[error("a deduplication id has 1 to 128 characters, none of them a control character")]
    Deduplication,
    /// A group name is empty, too long, or contains a character that is not allowed.
    #[error("a group name has 1 to 64 of the characters A-Z a-z 0-9 _ - .")]
    Group,
    /// An ordering key is empty, too long, or contains a control character.
    #[error("an ordering key has 1 to 128 characters, none of them a control character")]
    OrderingKey,
}

/// Id of a project, the tenant of the service: 1 to 256 characters, none of them an ASCII control
/// character except tab, as in an HTTP header. Stores compare it exactly and never use it as a
/// pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    /// Greatest length of a project id, in characters.
    pub const MAX_CHARS: usize = 256;

    /// Returns the id of the service's own project. No text parses to it, so no caller can use it.
    pub fn reserved() -> Self {
        Self("\u{1}chapar".into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the form that [`ProjectId::as_str`] returns, the reserved project included.
    ///
    /// # Errors
    /// [`InvalidName::Project`] if the text is neither the reserved project nor a valid id.
    pub fn from_store(id: &str) -> Result<Self, InvalidName> {
        let reserved = Self::reserved();
        if id == reserved.as_str() { Ok(reserved) } else { id.parse() }
    }
}

impl FromStr for ProjectId {
    type Err = InvalidName;

    fn from_str(id: &str) -> Result<Self, InvalidName> {
        let plain = |c: char| !c.is_ascii_control() || c == '\t';
        let fits =
            !id.is_empty() && id.chars().nth(Self::MAX_CHARS).is_none() && id.chars().all(plain);
        if fits { Ok(Self(id.into())) } else { Err(InvalidName::Project) }
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a queue, unique within its project: 1 to 64 ASCII letters, digits, `_`, `-` or `.`
/// (Zaqar v2 API, queue names). Stores compare it exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Greatest length of a name, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if is_plain(name) { Ok(Self(name.into())) } else { Err(InvalidName::Queue) }
    }
}

fn is_plain(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=QueueName::MAX_CHARS).contains(&name.len()) && name.bytes().all(valid)
}

/// Name of a consumer group, unique within its queue; the rules of [`QueueName`] apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if is_plain(name) { Ok(Self(name.into())) } else { Err(InvalidName::Group) }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_name_has_allowed_characters_and_length() {
        for name in ["q", "a.b-c_D9", &"x".repeat(64)] {
            assert!(name.parse::<QueueName>().is_ok(), "{name}");
        }
        for name in ["", "a b", "a\n", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(name.parse::<QueueName>(), Err(InvalidName::Queue), "{name}");
        }
    }

    #[test]
    fn a_project_id_is_bounded_in_characters_not_bytes() {
        assert!("ä".repeat(256).parse::<ProjectId>().is_ok());
        assert_eq!("ä".repeat(257).parse::<ProjectId>(), Err(InvalidName::Project));
        assert_eq!("".parse::<ProjectId>(), Err(InvalidName::Project));
    }

    #[test]
    fn no_text_parses_to_the_reserved_project() {
        let reserved = ProjectId::reserved();
        assert_eq!(reserved.as_str().parse::<ProjectId>(), Err(InvalidName::Project));
        assert_eq!(ProjectId::from_store(reserved.as_str()), Ok(reserved));
    }
}
