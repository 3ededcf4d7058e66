//! Hiding passwords and tokens in URIs.

/// Returns a URI with its passwords and tokens replaced by `***`.
pub(crate) fn without_secrets(uri: &str) -> String {
    let (location, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut shown = match location.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find(['/', '#']).unwrap_or(rest.len());
            match rest[..authority].rsplit_once('@') {
                Some((user, host)) => {
                    let user = user.split_once(':').map_or(user, |(name, _)| name);
                    format!("{scheme}://{user}:***@{host}{}", &rest[authority..])
                }
                None => location.to_owned(),
            }
        }
        None => location.to_owned(),
    };
    for (n, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let lower_key = key.to_ascii_lowercase();
        // authMechanismProperties may contain session tokens of MongoDB.
        let secret =
            ["password", "authmechanismproperties"].iter().any(|it| lower_key.contains(it));
        let value = if secret { "***" } else { value };
        shown.extend([if n == 0 { "?" } else { "&" }, key, "=", value]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_uri_is_hidden() {
        for (uri, shown) in [
            ("sqlite:chapar.db", "sqlite:chapar.db"),
            ("redis://host/0", "redis://host/0"),
            ("redis://me:p@ss@host:1/0?x=a@b", "redis://me:***@host:1/0?x=a@b"),
            ("mongodb://me:secret@a,b", "mongodb://me:***@a,b"),
            (
                "mongodb://me:p%40ss@a:1,[::1]:2/data?replicaSet=rs&w=majority",
                "mongodb://me:***@a:1,[::1]:2/data?replicaSet=rs&w=majority",
            ),
            ("mongodb+srv://me:secret@db.org/", "mongodb+srv://me:***@db.org/"),
            (
                "mongodb://a/?tlsCertificateKeyFilePassword=x&proxyPassword=y",
                "mongodb://a/?tlsCertificateKeyFilePassword=***&proxyPassword=***",
            ),
            (
                "mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:x",
                "mongodb://a/?authMechanismProperties=***",
            ),
            (
                "redis+sentinel://a/m?sentinel_password=x",
                "redis+sentinel://a/m?sentinel_password=***",
            ),
            ("sqlite:a.db?readers=2&durability=fsync", "sqlite:a.db?readers=2&durability=fsync"),
        ] {
            assert_eq!(without_secrets(uri), shown);
        }
    }
}
