//! The wire form of metadata patches: the contract's dialect of JSON Patch.

use serde_json::Value;

use crate::{
    error::ApiError,
    services::{PatchOperation, Verb},
};

/// Parses a patch. Every operation is checked before any is applied.
pub(super) fn parse(document: Value) -> Result<Vec<PatchOperation>, ApiError> {
    let Value::Array(operations) = document else {
        return Err(ApiError::Body("a patch is an array of operations".into()));
    };
    operations.into_iter().map(operation).collect()
}

fn operation(value: Value) -> Result<PatchOperation, ApiError> {
    let invalid = ApiError::Body;
    let Value::Object(mut fields) = value else {
        return Err(invalid("an operation of a patch must be an object".into()));
    };
    let verb = match fields.get("op").and_then(Value::as_str) {
        Some(verb @ ("add" | "remove" | "replace")) => verb.to_owned(),
        Some(other) => {
            return Err(invalid(format!("\"op\" must be add, remove or replace, not {other:?}")));
        }
        None => return Err(invalid("an operation of a patch needs \"op\"".into())),
    };
    let path = fields
        .get("path")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(format!("the operation {verb:?} needs a \"path\"")))?;
    let segments = pointer(path).map_err(invalid)?;
    let [root, key] = segments.as_slice() else {
        return Err(invalid(format!("the path {path:?} must have the form /metadata/<key>")));
    };
    if verb != "remove" && !root.eq_ignore_ascii_case("metadata") {
        return Err(invalid(format!("the path {path:?} must begin with /metadata")));
    }
    let key = key.clone();
    let verb = if verb == "remove" {
        Verb::Remove
    } else {
        let value = fields
            .remove("value")
            .ok_or_else(|| invalid(format!("the operation {verb:?} needs a \"value\"")))?;
        if verb == "add" { Verb::Add(value) } else { Verb::Replace(value) }
    };
    Ok(PatchOperation { verb, key })
}

/// Parses the segments of a JSON pointer, by the rules of the contract.
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
    fn a_patch_is_an_array_of_operations() {
        let add = json!([{"op": "add", "path": "/METADATA/a", "value": null}]);
        let expected = PatchOperation { verb: Verb::Add(Value::Null), key: "a".into() };
        assert_eq!(parse(add).unwrap(), [expected]);
        let remove = json!([{"op": "remove", "path": "/anything/a"}]);
        let expected = PatchOperation { verb: Verb::Remove, key: "a".into() };
        assert_eq!(parse(remove).unwrap(), [expected]);
        for patch in [
            json!({}),
            json!([1]),
            json!([{"path": "/metadata/a"}]),
            json!([{"op": "move", "path": "/metadata/a"}]),
            json!([{"op": "add", "value": 1}]),
            json!([{"op": "add", "path": "/metadata/a"}]),
            json!([{"op": "add", "path": "/other/a", "value": 1}]),
        ] {
            assert!(matches!(parse(patch.clone()), Err(ApiError::Body(_))), "{patch}");
        }
    }
}
