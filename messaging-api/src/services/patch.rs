//! Changing metadata piece by piece: the contract's dialect of JSON Patch.

use serde_json::{Map, Value};

use super::metadata::SHOWN;
use crate::error::ApiError;

/// One operation, its syntax checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operation {
    verb: Verb,
    key: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Verb {
    Add(Value),
    Replace(Value),
    Remove,
}

/// Reads a patch: all operations are checked before any is applied.
pub(crate) fn parse(document: Value) -> Result<Vec<Operation>, ApiError> {
    let Value::Array(operations) = document else {
        return Err(ApiError::Body("a patch is an array of operations".into()));
    };
    operations.into_iter().map(operation).collect()
}

fn operation(value: Value) -> Result<Operation, ApiError> {
    let fault = |text: String| ApiError::Body(text);
    let Value::Object(mut fields) = value else {
        return Err(fault("an operation of a patch must be an object".into()));
    };
    let verb = match fields.get("op").and_then(Value::as_str) {
        Some(verb @ ("add" | "remove" | "replace")) => verb.to_owned(),
        Some(other) => {
            return Err(fault(format!("\"op\" must be add, remove or replace, not {other:?}")));
        }
        None => return Err(fault("an operation of a patch needs \"op\"".into())),
    };
    let path = fields
        .get("path")
        .and_then(Value::as_str)
        .ok_or_else(|| fault(format!("the operation {verb:?} needs a \"path\"")))?;
    let segments = pointer(path).map_err(fault)?;
    let [root, key] = segments.as_slice() else {
        return Err(fault(format!("the path {path:?} must have the form /metadata/<key>")));
    };
    if verb != "remove" && !root.eq_ignore_ascii_case("metadata") {
        return Err(fault(format!("the path {path:?} must begin with /metadata")));
    }
    let key = key.clone();
    let verb = if verb == "remove" {
        Verb::Remove
    } else {
        let value = fields
            .remove("value")
            .ok_or_else(|| fault(format!("the operation {verb:?} needs a \"value\"")))?;
        if verb == "add" { Verb::Add(value) } else { Verb::Replace(value) }
    };
    Ok(Operation { verb, key })
}

/// The segments of a JSON pointer, by the rules of the contract.
fn pointer(path: &str) -> Result<Vec<String>, String> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(format!("the path {path:?} must begin with /"));
    };
    rest.split('/')
        .map(|segment| {
            let segment = segment.trim();
            if segment.is_empty() {
                return Err(format!("the path {path:?} has an empty part"));
            }
            let mut escapes = segment.split('~');
            let mut plain = escapes.next().unwrap_or_default().to_owned();
            for escape in escapes {
                match escape.split_at_checked(1) {
                    Some(("0", rest)) => plain.extend(["~", rest]),
                    Some(("1", rest)) => plain.extend(["/", rest]),
                    _ => return Err(format!("the path {path:?} has a ~ that is not ~0 or ~1")),
                }
            }
            Ok(plain)
        })
        .collect()
}

/// Applies operations in order, all or none.
pub(super) fn apply(
    metadata: &Map<String, Value>,
    operations: &[Operation],
) -> Result<Map<String, Value>, ApiError> {
    let mut changed = metadata.clone();
    for Operation { verb, key } in operations {
        let absent = !changed.contains_key(key);
        let reserved = SHOWN.contains(&key.as_str());
        if absent && !reserved && !matches!(verb, Verb::Add(_)) {
            return Err(ApiError::Conflict(format!("the metadata have no key {key:?}")));
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
    fn a_pointer_has_two_parts() {
        assert_eq!(pointer("/metadata/a~1b~0c").unwrap(), ["metadata", "a/b~c"]);
        assert_eq!(pointer("/ metadata / a ").unwrap(), ["metadata", "a"]);
        for path in ["", "metadata/a", "/metadata/", "/metadata//a", "/metadata/~2", "/metadata/a~"]
        {
            assert!(pointer(path).is_err(), "{path}");
        }
    }

    #[test]
    fn nothing_is_applied_unless_all_can_be() {
        let before = json!({"a": 1}).as_object().cloned().unwrap();
        let patch = |document| parse(document).and_then(|operations| apply(&before, &operations));
        let add_then_fail = json!([
            {"op": "add", "path": "/metadata/b", "value": 2},
            {"op": "remove", "path": "/metadata/c"},
        ]);
        assert!(matches!(patch(add_then_fail), Err(ApiError::Conflict(_))));
        let good = json!([
            {"op": "replace", "path": "/METADATA/a", "value": null},
            {"op": "remove", "path": "/anything/_max_claim_count"},
        ]);
        assert_eq!(Value::from(patch(good).unwrap()), json!({"a": null}));
    }
}
