//! The retry policy of webhooks, in the metadata of queues and the options of subscriptions.

use serde_json::Value;

use crate::coerce::{integer, is_falsy};

const BACKOFF: [&str; 4] = ["linear", "arithmetic", "geometric", "exponential"];
/// The smallest difference between the two delays, in seconds.
const MIN_SPREAD: i64 = 10;

/// Checks a policy. The error is a clause that says what is wrong. Falsy values stand for the
/// defaults.
pub(super) fn check(policy: &Value) -> Result<(), String> {
    if is_falsy(policy) {
        return Ok(());
    }
    let Value::Object(policy) = policy else {
        return Err("\"_retry_policy\" must be an object".into());
    };
    let given = |key: &str| policy.get(key).filter(|value| !is_falsy(value));
    let number = |key: &str, default: i64| match given(key) {
        None => Ok(default),
        Some(value) => integer(value).ok_or_else(|| format!("\"{key}\" must be an integer")),
    };
    for key in ["retries_with_no_delay", "minimum_delay_retries", "maximum_delay_retries"] {
        number(key, 3)?;
    }
    let (minimum, maximum) = (number("minimum_delay", 5)?, number("maximum_delay", 30)?);
    if maximum < minimum {
        return Err("\"minimum_delay\" must not be greater than \"maximum_delay\"".into());
    }
    if maximum.saturating_sub(minimum) < MIN_SPREAD {
        return Err(format!(
            "\"maximum_delay\" must be {MIN_SPREAD} seconds greater than \"minimum_delay\""
        ));
    }
    match given("retry_backoff_function") {
        None => {}
        Some(Value::String(name)) if BACKOFF.contains(&name.as_str()) => {}
        Some(_) => {
            return Err(format!(
                "\"retry_backoff_function\" must be one of {}",
                BACKOFF.join(", ")
            ));
        }
    }
    match given("ignore_subscription_override") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(_) => Err("\"ignore_subscription_override\" must be true or false".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_checked_with_its_defaults() {
        for policy in [
            json!({}),
            json!(null),
            json!({"minimum_delay": 20, "maximum_delay": 30, "retry_backoff_function": "geometric"}),
            json!({"retries_with_no_delay": 0, "unknown": []}),
            json!({"minimum_delay": 0}),
        ] {
            assert_eq!(check(&policy), Ok(()), "{policy}");
        }
        for policy in [
            json!("linear"),
            json!([1]),
            json!({"minimum_delay": 25}),
            json!({"maximum_delay": 4}),
            json!({"minimum_delay": "5"}),
            json!({"retry_backoff_function": "random"}),
            json!({"ignore_subscription_override": 1}),
        ] {
            assert!(check(&policy).is_err(), "{policy}");
        }
    }
}
