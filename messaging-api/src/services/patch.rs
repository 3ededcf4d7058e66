//! Patches of a queue's metadata.

use serde_json::{Map, Value};

use super::{
    error::{Error, Result},
    metadata::SHOWN,
};

/// One operation of a patch, on one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PatchOperation {
    pub verb: Verb,
    pub key: String,
}

/// What an operation does to its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verb {
    /// Sets the value, whether or not the key exists.
    Add(Value),
    /// Sets the value of an existing key.
    Replace(Value),
    /// Removes an existing key.
    Remove,
}

/// Applies operations in order. Either all are applied or none.
pub(super) fn apply(
    metadata: &Map<String, Value>,
    operations: &[PatchOperation],
) -> Result<Map<String, Value>> {
    let mut changed = metadata.clone();
    for PatchOperation { verb, key } in operations {
        let absent = !changed.contains_key(key);
        let reserved = SHOWN.contains(&key.as_str());
        if absent && !reserved && !matches!(verb, Verb::Add(_)) {
            return Err(Error::Conflict(format!("the metadata have no key {key:?}")));
        }
        match verb {
            Verb::Add(value) | Verb::Replace(value) => {
                changed.insert(key.clone(), value.clone());
            }
            Verb::Remove => {
                changed.remove(key);
            }
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_applied_as_a_whole_or_not_at_all() {
        let before = json!({"a": 1}).as_object().cloned().unwrap();
        let operation = |verb, key: &str| PatchOperation { verb, key: key.to_owned() };
        let add_then_fail = [operation(Verb::Add(json!(2)), "b"), operation(Verb::Remove, "c")];
        assert!(matches!(apply(&before, &add_then_fail), Err(Error::Conflict(_))));
        let good = [
            operation(Verb::Replace(Value::Null), "a"),
            operation(Verb::Remove, "_max_claim_count"),
        ];
        assert_eq!(Value::from(apply(&before, &good).unwrap()), json!({"a": null}));
    }
}
