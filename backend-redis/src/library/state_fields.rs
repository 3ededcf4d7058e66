//! Fields of the state of a queue or group, and the Lua code that is generated from them.
//!
//! A state is one packed string. A function that needs few fields unpacks and overwrites a range of
//! them; which bytes that are is computed here, from one table.

/// A field of the state.
pub(super) struct Field {
    name: &'static str,
    format: Format,
    /// Lua expression for the value in a new state.
    initial: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A number of 8 bytes.
    Number,
    /// Text that ends with a zero byte.
    Text,
}

const NUMBER_BYTES: usize = 8;

const fn number(name: &'static str, initial: &'static str) -> Field {
    Field { name, format: Format::Number, initial }
}

const fn text(name: &'static str, initial: &'static str) -> Field {
    Field { name, format: Format::Text, initial }
}

/// The fields in the order in which they are packed. Those that the fast paths read come first.
pub(super) const STATE_FIELDS: [Field; 31] = [
    // Sequence of the last message.
    number("last", "0"),
    // Number of ready messages without an ordering key, and how many of them are fresh.
    number("ready", "0"),
    number("fresh", "0"),
    // When the last message of stream 1 expires.
    number("tail_expiry1", "NEVER"),
    // Latest post time of a message of stream 1.
    number("last_posted_at", "0"),
    // When something is due next.
    number("due", "NEVER"),
    number("groups", "0"),
    number("kind", "source == '' and KIND_QUEUE or KIND_GROUP"),
    // Messages of stream 1 after this sequence are fresh.
    number("cursor", "0"),
    number("delayed", "0"),
    // Number of messages that are claimed or reserved for a transfer.
    number("claimed", "0"),
    number("deferred_claims", "0"),
    // A minute, and how many messages were completed in it and in the one before.
    number("minute", "0"),
    number("completed", "0"),
    number("completed_previous", "0"),
    // Number of ready messages with an ordering key, and of keys that can be claimed from.
    number("ready_keyed", "0"),
    number("available_keys", "0"),
    number("has_retention_log", "0"),
    number("dead_letters", "0"),
    // Number of messages that more than one of the queue, its groups and its retention log have.
    number("shared_messages", "0"),
    number("expiry_runs", "0"),
    number("has_stream2", "0"),
    // Latest rotation number, and that of the messages without an ordering key.
    number("rotation", "0"),
    number("unkeyed_rotation", "0"),
    // First time that the redrives with a rate have left unused.
    number("next_redrive", "0"),
    // When the last message of stream 2 expires.
    number("tail_expiry2", "NEVER"),
    // A new group copies messages after this sequence and up to that one (0: no more) that were
    // posted since then.
    number("backfill_after", "0"),
    number("backfill_up_to", "0"),
    number("backfill_since", "0"),
    // Key of the queue, and name of the group; empty in a queue.
    text("source", "source"),
    text("name", "name"),
];

/// Replaces the expressions in double braces:
///
/// | Expression | Lua code |
/// | --- | --- |
/// | `names A..B` | `a, …, b`, for local variables |
/// | `format A..B` | format of these fields, a literal |
/// | `offset A`, `position A` | where field `A` begins, counted from 0 and from 1 |
/// | `values t` | `t.first, …, t.last` |
/// | `assignments` | `first = first, …`, for a table constructor |
/// | `initial_assignments` | the same with the values of a new state |
///
/// Without a range, `names` and `format` mean all fields.
///
/// # Errors
/// Which expression is wrong.
pub(super) fn expand(source: &str, fields: &[Field]) -> Result<String, String> {
    let mut expanded = String::with_capacity(2 * source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) =
            after.split_once("}}").ok_or_else(|| format!("{after:.40} has no end"))?;
        expanded.push_str(before);
        let code = evaluate(expression, fields);
        expanded.push_str(&code.ok_or_else(|| format!("{expression:?} is wrong"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn evaluate(expression: &str, fields: &[Field]) -> Option<String> {
    let mut words = expression.split(' ');
    let (what, argument) = (words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    let list = |fields: &[Field], item: &dyn Fn(&Field) -> String| -> String {
        fields.iter().map(item).collect::<Vec<_>>().join(", ")
    };
    match (what, argument) {
        ("names", range) => Some(list(select(range, fields)?, &|field| field.name.to_owned())),
        ("format", range) => {
            let codes = select(range, fields)?.iter().map(|field| match field.format {
                Format::Number => 'd',
                Format::Text => 's',
            });
            Some(format!("'<{}'", codes.collect::<String>()))
        }
        ("offset", Some(name)) => offset_of(name, fields).map(|offset| offset.to_string()),
        ("position", Some(name)) => offset_of(name, fields).map(|offset| (offset + 1).to_string()),
        ("values", Some(table)) => Some(list(fields, &|field| format!("{table}.{}", field.name))),
        ("assignments", None) => Some(list(fields, &|field| format!("{0} = {0}", field.name))),
        ("initial_assignments", None) => {
            Some(list(fields, &|field| format!("{} = {}", field.name, field.initial)))
        }
        _ => None,
    }
}

fn index_of(name: &str, fields: &[Field]) -> Option<usize> {
    fields.iter().position(|field| field.name == name)
}

/// Returns the fields of a range such as `last..kind`, both included.
fn select<'f>(range: Option<&str>, fields: &'f [Field]) -> Option<&'f [Field]> {
    let Some(range) = range else { return Some(fields) };
    let (first, last) = range.split_once("..")?;
    let selected = fields.get(index_of(first, fields)?..=index_of(last, fields)?)?;
    (!selected.is_empty()).then_some(selected)
}

/// Returns where a field begins; `None` if a field before it has no fixed length.
fn offset_of(name: &str, fields: &[Field]) -> Option<usize> {
    let before = &fields[..index_of(name, fields)?];
    let is_fixed = before.iter().all(|field| field.format == Format::Number);
    is_fixed.then(|| NUMBER_BYTES * before.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SOURCE: &str = "local {{names b..c}} = unpack({{format b..c}}, raw, {{position b}})\n\
                          write({{offset b}}, {{names b..c}})";

    #[test]
    fn names_formats_and_offsets_come_from_the_table() {
        let fields = [number("a", "0"), number("b", "NEVER"), text("c", "name")];
        assert_eq!(
            expand(SOURCE, &fields).unwrap(),
            "local b, c = unpack('<ds', raw, 9)\nwrite(8, b, c)"
        );
        for (expression, code) in [
            ("{{names}}", "a, b, c"),
            ("{{format}}", "'<dds'"),
            ("{{values s}}", "s.a, s.b, s.c"),
            ("{{assignments}}", "a = a, b = b, c = c"),
            ("{{initial_assignments}}", "a = 0, b = NEVER, c = name"),
        ] {
            assert_eq!(expand(expression, &fields).unwrap(), code);
        }
    }

    #[test]
    fn a_new_field_moves_all_that_follow_it() {
        let fields = [number("new", "0"), number("a", "0"), number("b", "0"), text("c", "")];
        assert_eq!(
            expand(SOURCE, &fields).unwrap(),
            "local b, c = unpack('<ds', raw, 17)\nwrite(16, b, c)"
        );
        // One within a range is unpacked and written with it.
        let fields = [number("a", "0"), number("b", "0"), number("new", "0"), number("c", "0")];
        assert_eq!(
            expand(SOURCE, &fields).unwrap(),
            "local b, new, c = unpack('<ddd', raw, 9)\nwrite(8, b, new, c)"
        );
    }

    #[test]
    fn what_the_table_does_not_have_is_refused() {
        let fields = [number("a", "0"), text("b", ""), number("c", "0")];
        for wrong in [
            "{{names x..a}}",
            "{{names b..a}}",
            "{{names a}}",
            "{{offset x}}",
            "{{offset}}",
            // Its offset depends on the text before it.
            "{{offset c}}",
            "{{values}}",
            "{{size}}",
            "{{}}",
            "{{names a..b",
        ] {
            assert!(expand(wrong, &fields).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_field_of_the_state_has_a_name_of_its_own() {
        let names: HashSet<_> = STATE_FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), STATE_FIELDS.len());
    }
}
