use std::path::PathBuf;

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Value},
};

use super::{sections::Config, validate::validate};

const DEFAULTS: &str = include_str!("../config.default.toml");

/// The keys that the command line sets.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// The operator's configuration file.
    pub file: Option<PathBuf>,
    /// `http.listen`.
    pub listen: Option<String>,
}

/// Merges the defaults, the file, the environment and the command line, in this order.
///
/// # Errors
/// Every fault, each as a sentence that names the key and its source.
pub fn load(overrides: &Overrides) -> Result<Config, Vec<String>> {
    let mut set = Figment::new();
    if let Some(file) = &overrides.file {
        if !file.is_file() {
            return Err(vec![format!("{}: there is no such file", file.display())]);
        }
        set = set.merge(Toml::file_exact(file));
    }
    set = set.merge(Env::prefixed("CHAPAR__").split("__"));
    if let Some(listen) = &overrides.listen {
        set = set.merge(Serialized::default("http.listen", listen));
    }
    let given = set.extract::<Dict>().map_err(in_sentences)?;

    // Each key is merged into the defaults by itself, so that one fault does not hide another.
    let defaults = Figment::from(Toml::string(DEFAULTS));
    let known = defaults.extract::<Dict>().map_err(in_sentences)?;
    let (mut merged, mut faults) = (defaults.clone(), Vec::new());
    for (key, value) in leaves(&given) {
        let source = source(&set, &key, overrides);
        if !is_known(&known, &key) {
            faults.push(format!("{key}: there is no such key{source}"));
            continue;
        }
        let value = (key.as_str(), value);
        match defaults.clone().merge(value.clone()).extract::<Config>() {
            Ok(_) => merged = merged.merge(value),
            Err(error) => {
                faults.extend(error.into_iter().map(|e| format!("{key}: {}{source}", e.kind)));
            }
        }
    }
    let mut config: Config = merged.extract().map_err(in_sentences)?;
    config.metrics_listen_is_set = set.find_value("metrics.listen").is_ok();
    faults.extend(validate(&config));
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Returns where a key was set, as text for an error message.
fn source(set: &Figment, key: &str, overrides: &Overrides) -> String {
    let origin = match set.find_metadata(key) {
        _ if key == "http.listen" && overrides.listen.is_some() => "--listen".to_owned(),
        Some(metadata) if metadata.name.contains("environment") => {
            format!("CHAPAR__{}", key.replace('.', "__").to_uppercase())
        }
        Some(metadata) => {
            metadata.source.as_ref().map_or(metadata.name.to_string(), ToString::to_string)
        }
        None => return String::new(),
    };
    format!(" (set by {origin})")
}

fn in_sentences(error: figment::Error) -> Vec<String> {
    error.into_iter().map(|e| e.to_string()).collect()
}

/// Returns all keys as `section.key`, with their values.
fn leaves(sections: &Dict) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (section, value) in sections {
        match value {
            Value::Dict(_, keys) => {
                leaves.extend(keys.iter().map(|(key, v)| (format!("{section}.{key}"), v.clone())));
            }
            other => leaves.push((section.clone(), other.clone())),
        }
    }
    leaves
}

fn is_known(known: &Dict, key: &str) -> bool {
    let Some((section, key)) = key.split_once('.') else { return false };
    known.get(section).and_then(Value::as_dict).is_some_and(|keys| keys.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(&Overrides { file: Some(file.path().to_owned()), listen: None })
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = load(&Overrides::default()).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8888");
        assert!(!config.metrics_listen_is_set);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let faults = with_file(
            "surprise = 1\n[http]\nlisten = 'nowhere'\nbody_timeout = 'soon'\nport = 1\n\
             [limits]\nmax_message_ttl = 1\n[pool]\nuri = 'ftp://x'",
        )
        .unwrap_err();
        for key in [
            "surprise",
            "http.listen",
            "http.body_timeout",
            "http.port",
            "limits.max_message_ttl",
            "pool.uri",
        ] {
            assert_eq!(
                faults.iter().filter(|f| f.starts_with(key)).count(),
                1,
                "{key}: {faults:#?}"
            );
        }
    }

    #[test]
    fn a_file_and_flags_override_the_defaults() {
        let config =
            with_file("[limits]\ndefault_message_ttl = 120\n[metrics]\nlisten = ''").unwrap();
        assert_eq!(config.limits.default_message_ttl, 120);
        assert!(config.metrics_listen_is_set);
        let flags = Overrides { file: None, listen: Some("127.0.0.1:1".into()) };
        assert_eq!(load(&flags).unwrap().http.listen.port(), 1);
    }

    #[test]
    fn a_printed_configuration_can_be_loaded() {
        let config = load(&Overrides::default()).unwrap();
        assert_eq!(with_file(&config.to_toml()).unwrap().to_toml(), config.to_toml());
    }
}
