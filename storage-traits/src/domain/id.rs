use std::{fmt, str::FromStr};

use crate::random;

/// Error of parsing a text that is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed id")]
pub struct InvalidId;

/// Number that identifies a queue, and distinguishes it from all earlier queues of the same name: a
/// queue that is deleted and created again gets a new incarnation, so no message id is used twice.
/// Positive, and unique within a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(i64);

impl Incarnation {
    /// Bit 62, set in the incarnations of groups. The time sets it in those of queues from the year
    /// 2039 on.
    const GROUP_BIT: i64 = 1 << 62;

    /// Reads the number that [`Incarnation::get`] returns; returns `None` unless it is positive.
    pub const fn new(number: i64) -> Option<Self> {
        if number > 0 { Some(Self(number)) } else { None }
    }

    /// Generates an incarnation for a queue: the time in the upper 42 bits, so that incarnations
    /// sort by time, and random bits in the lower 21. The catalog enforces uniqueness, and
    /// generates another incarnation after a collision.
    pub fn generate(now: super::Timestamp) -> Self {
        const RANDOM_BITS: u32 = 21;
        let random = random::random_i64() & ((1 << RANDOM_BITS) - 1);
        let millis = now.as_millis() & ((1 << 42) - 1);
        Self((millis << RANDOM_BITS | random).max(1))
    }

    /// Generates an incarnation for a group or a retention log, which a pool addresses like a queue
    /// though it is not in the catalog. Bit 62 is set, the lower bits are random.
    pub fn generate_for_group() -> Self {
        Self(random::random_i64() & (Self::GROUP_BIT - 1) | Self::GROUP_BIT)
    }

    /// Returns whether this may be the incarnation of a group or a retention log; if `false`, it is
    /// that of a queue.
    pub const fn is_group(self) -> bool {
        self.0 & Self::GROUP_BIT != 0
    }

    /// Returns the number that stores keep.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Position of a message within its queue: starts at 1, is fixed when the post is committed, and is
/// never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(i64);

impl Sequence {
    /// Reads the number that [`Sequence::get`] returns; returns `None` if it is negative. No
    /// message has the sequence 0: it is the position before the first.
    pub const fn new(number: i64) -> Option<Self> {
        if number >= 0 { Some(Self(number)) } else { None }
    }

    /// Returns the number that stores keep.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Id of a message: the incarnation of its queue and its sequence, written as 32 lower-case hex
/// digits. The order of the texts is the order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Incarnation of the queue to which the message was posted; in a group too.
    pub incarnation: Incarnation,
    /// Position in the queue.
    pub sequence: Sequence,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.incarnation.0.unsigned_abs()) << 64
            | u128::from(self.sequence.0.unsigned_abs());
        f.write_str(format_hex(bits, &mut [0; 32]))
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bits = parse_hex(text)?;
        let part = |bits: u128| i64::try_from(bits & u128::from(u64::MAX)).map_err(|_| InvalidId);
        Ok(Self {
            incarnation: Incarnation::new(part(bits >> 64)?).ok_or(InvalidId)?,
            sequence: Sequence::new(part(bits)?).ok_or(InvalidId)?,
        })
    }
}

/// Id of a claim, unique within its queue or group: 128 random bits, written as 32 lower-case hex
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(u128);

impl ClaimId {
    /// Generates an unguessable id.
    pub fn random() -> Self {
        Self(u128::from_be_bytes(random::bytes()))
    }

    /// Returns the form that stores keep.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the form that [`ClaimId::to_bytes`] returns.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format_hex(self.0, &mut [0; 32]))
    }
}

impl FromStr for ClaimId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_hex(text).map(Self)
    }
}

/// Writes 32 lower-case hex digits. Faster than `{:032x}`, since a response has several ids for
/// each message.
fn format_hex(bits: u128, digits: &mut [u8; 32]) -> &str {
    for (index, digit) in digits.iter_mut().enumerate() {
        let nibble = (bits >> (124 - 4 * index)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

/// Parses exactly 32 lower-case hex digits, so that an id has one spelling.
fn parse_hex(text: &str) -> Result<u128, InvalidId> {
    let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u128::from_str_radix(text, 16).map_err(|_| InvalidId) } else { Err(InvalidId) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn id(incarnation: i64, sequence: i64) -> MessageId {
        MessageId {
            incarnation: Incarnation::new(incarnation).unwrap(),
            sequence: Sequence::new(sequence).unwrap(),
        }
    }

    #[test]
    fn text_order_is_queue_order() {
        let ids = [id(1, 9), id(1, 10), id(1, 1 << 40), id(2, 1), id(i64::MAX, i64::MAX)];
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
        assert!(ids.iter().zip(&texts).all(|(id, text)| text.parse() == Ok(*id)));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let text = id(10, 11).to_string();
        for wrong in
            [&text.to_uppercase(), &text[1..], &format!("{text}0"), "", "+1", &"f".repeat(32)]
        {
            assert_eq!(wrong.parse::<MessageId>(), Err(InvalidId), "{wrong}");
        }
    }

    #[test]
    fn later_incarnations_sort_after_earlier_ones() {
        let incarnations = [1_700_000_000_000, 1_700_000_000_001, 4_000_000_000_000]
            .map(|millis| Incarnation::generate(Timestamp::from_millis(millis)));
        assert!(incarnations.is_sorted());
    }

    #[test]
    fn is_group_distinguishes_groups_from_queues() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        assert!(!Incarnation::generate(now).is_group());
        assert!(Incarnation::generate_for_group().is_group());
    }
}
