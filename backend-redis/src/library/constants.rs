//! Values and formats that the node and the Lua functions agree on.
//!
//! Formats are those of the `struct` library of Redis: `I6` is an unsigned number of 6 bytes, `H`
//! one of 2, `B` one of 1, `c16` 16 bytes, `c0` as many bytes as the number before says.

use crate::shared_constants::shared_constants;

shared_constants! {
    /// Later than any time, in milliseconds; later times are cut to it.
    NEVER: i64 = (1 << 48) - 1;
    /// Bytes of messages after which a reply gets no more of them.
    MAX_REPLY_BYTES: i64 = 1_048_576;

    /// First field of most replies: the call is done.
    STATUS_OK: i64 = 0;
    /// First field of most replies: more is due than one step applies; the caller repeats the call.
    STATUS_AGAIN: i64 = 1;
    /// First field of most replies: the queue, group or claim does not exist.
    STATUS_UNKNOWN: i64 = 2;

    /// In `list`: the page is what the caller has read from the stream.
    LIST_AS_READ: i64 = -1;

    DELETE_DONE: i64 = 0;
    DELETE_MISSING: i64 = 1;
    DELETE_CLAIMED: i64 = 2;
    DELETE_UNKNOWN_CLAIM: i64 = 3;
    DELETE_NOT_CLAIMED: i64 = 4;
    DELETE_CLAIMED_BY_OTHER: i64 = 5;

    RESCHEDULE_DONE: i64 = 0;
    RESCHEDULE_MISSING: i64 = 1;
    RESCHEDULE_VISIBLE: i64 = 2;

    /// Where a group starts to read.
    START_AT_START: &str = "start";
    START_AT_END: &str = "end";
    START_AT_TIME: &str = "time";
    START_AT_SEQUENCE: &str = "sequence";

    /// How a transfer ended for messages: they are stored at the destination.
    TRANSFER_MOVED: &str = "moved";
    /// The messages stay in their queue.
    TRANSFER_REJECTED: &str = "rejected";
    /// The messages stay in their queue, and are dead letters no longer.
    TRANSFER_ORPHANED: &str = "orphaned";
    /// Distinguishes transfer ids from deduplication ids, which have no control characters.
    TRANSFER_ID_PREFIX: &str = "\0";

    /// Published when a queue or group is deleted.
    EVENT_DROPPED: &str = "dropped";

    /// Kinds of states.
    KIND_QUEUE: i64 = 0;
    KIND_GROUP: i64 = 1;

    /// States of a message. Fresh: ready, and in no index.
    STATE_FRESH: &str = "f";
    STATE_READY: &str = "r";
    STATE_READY_KEYED: &str = "k";
    STATE_DELAYED: &str = "d";
    STATE_CLAIMED: &str = "c";
    STATE_IN_TRANSFER: &str = "t";

    /// What a timer is for; a claim id, a sequence or a deduplication id follows.
    TIMER_CLAIM: &str = "c";
    TIMER_CLAIM_BYTE: u8 = b'c';
    TIMER_MESSAGE: &str = "m";
    TIMER_MESSAGE_BYTE: u8 = b'm';
    TIMER_DEDUPLICATION: &str = "d";

    /// First flag of every message: the format in which it is stored.
    FORMAT_V1: u8 = 32;
    FLAG_KEYED: u8 = 1;
    FLAG_DEAD_LETTER: u8 = 2;
    FLAG_RETAINED: u8 = 4;

    /// Header of a message: when it was posted, becomes visible and expires, ttl, flags, ordering
    /// key; then client, checksum and origin, each a `HEADER_TEXT`; then the body.
    HEADER: &str = "<I6I6I6I5BHc0";
    HEADER_TIMES: &str = "<I6I6I6";
    HEADER_TIMES_AND_TTL: &str = "<I6I6I6I5";
    HEADER_UP_TO_FLAGS: &str = "<I6I6I6I5B";
    HEADER_TEXT: &str = "<Hc0";
    HEADER_EXPIRES_OFFSET: i64 = 12;
    TIME: &str = "<I6";
    TIME_BYTES: i64 = 6;

    /// Delivery state: state, whether it has an ordering key, is a dead letter, is claimed, when it
    /// expires and becomes visible, ttl, claim count, claim, ordering key.
    DELIVERY: &str = "<c1BBBI6I6I5I4c16Hc0";
    DELIVERY_WITHOUT_KEY: &str = "<c1BBBI6I6I5I4c16H";
    /// First byte of a delivery state that is followed by a claim and nothing else: the message was
    /// claimed once, and is otherwise as it was posted.
    SHORT_DELIVERY: &str = "C";
    SHORT_DELIVERY_BYTE: u8 = b'C';

    /// Claim: when it was renewed, ttl, when it expires; then the sequences that it took.
    CLAIM: &str = "<I6I5I6";
    CLAIM_BYTES: i64 = 17;
    SEQUENCE: &str = "<I6";
    SEQUENCE_ITEM: &str = "I6";
    SEQUENCE_BYTES: i64 = 6;
    /// Sequence whose bytes sort like the number.
    ORDERED_SEQUENCE: &str = ">I6";

    /// Ordering key: messages ready, messages in flight, rotation number or 0.
    ORDERING_KEY: &str = "<I6I6I6";
    /// Deduplication id: sequence, end of the window.
    DEDUPLICATION: &str = "<I6I6";
    /// Group: when it was created, key of its state; then its settings.
    GROUP_ENTRY: &str = "<I6s";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_formats_begin_like_the_whole_one() {
        for part in [HEADER_TIMES, HEADER_TIMES_AND_TTL, HEADER_UP_TO_FLAGS] {
            assert!(HEADER.starts_with(part), "{part}");
        }
        assert_eq!(format!("{HEADER_UP_TO_FLAGS}Hc0"), HEADER);
        assert_eq!(format!("{DELIVERY_WITHOUT_KEY}c0"), DELIVERY);
        assert_eq!(format!("<{SEQUENCE_ITEM}"), SEQUENCE);
    }

    #[test]
    fn marks_and_their_bytes_are_the_same() {
        for (mark, byte) in [
            (TIMER_CLAIM, TIMER_CLAIM_BYTE),
            (TIMER_MESSAGE, TIMER_MESSAGE_BYTE),
            (SHORT_DELIVERY, SHORT_DELIVERY_BYTE),
        ] {
            assert_eq!(mark.as_bytes(), [byte]);
        }
        let states = [
            STATE_FRESH,
            STATE_READY,
            STATE_READY_KEYED,
            STATE_DELAYED,
            STATE_CLAIMED,
            STATE_IN_TRANSFER,
        ];
        assert!(!states.contains(&SHORT_DELIVERY));
    }
}
