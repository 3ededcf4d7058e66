//! The command line and the validation of the configuration.

use tests::{TestApp, run};

#[test]
fn help_lists_the_commands() {
    for args in [&["--help"][..], &["-h"]] {
        let (status, text) = run(args, &[]);
        assert!(status.success(), "{status}: {text}");
        assert!(text.contains("serve") && text.contains("config"), "{text}");
    }
}

#[test]
fn version_prints_the_name_and_the_version() {
    let (status, text) = run(&["--version"], &[]);
    assert!(status.success(), "{status}: {text}");
    assert_eq!(text.trim(), format!("chapar {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_command_is_refused() {
    for args in [&["dance"][..], &["--dance"]] {
        let (status, text) = run(args, &[]);
        assert!(!status.success(), "{args:?}: {text}");
        assert!(text.contains("dance"), "{text}");
    }
}

#[test]
fn config_prints_the_effective_values() {
    let settings = [
        ("HTTP__LISTEN", "127.0.0.1:9876"),
        ("LIMITS__DEFAULT_MESSAGE_TTL", "4321"),
        ("COMPAT__CLIENT_ID_UUID_SAFE", "off"),
    ];
    let (status, text) = run(&["config"], &settings);
    assert!(status.success(), "{status}: {text}");
    for expected in ["127.0.0.1:9876", "4321", "off", "default_claim_ttl", "300", "1209600"] {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
}

#[test]
fn an_unknown_key_is_reported() {
    for (key, name) in [
        ("HTTP__LISTN", "listn"),
        ("LIMITS__MAX_QUEUE_METADATAS", "max_queue_metadatas"),
        ("NONSENSE__KEY", "nonsense"),
    ] {
        for command in ["serve", "config"] {
            let (status, text) = run(&[command], &[(key, "1")]);
            assert!(!status.success(), "{command} with {key}: {text}");
            assert!(text.to_lowercase().contains(name), "{command} does not name {name}:\n{text}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_is_reported() {
    for (key, name, value) in [
        ("HTTP__LISTEN", "listen", "nowhere"),
        ("HTTP__BODY_TIMEOUT", "body_timeout", "soon"),
        ("HTTP__MAX_HEADER_BYTES", "max_header_bytes", "many"),
        ("LIMITS__MAX_MESSAGE_TTL", "max_message_ttl", "long"),
        ("COMPAT__CLIENT_ID_UUID_SAFE", "client_id_uuid_safe", "perhaps"),
        ("ADMIN__ENABLED", "enabled", "2.5"),
    ] {
        let (status, text) = run(&["serve"], &[(key, value)]);
        assert!(!status.success(), "{key}={value}: {text}");
        assert!(text.contains(name), "{key}={value} does not name {name}:\n{text}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let faults = [
        ("LIMITS__MAX_QUEUES_PER_PAGE", "0", "max_queues_per_page"),
        ("LIMITS__MAX_MESSAGES_PER_PAGE", "0", "max_messages_per_page"),
        ("LIMITS__DEFAULT_MESSAGE_TTL", "1", "default_message_ttl"),
        ("LIMITS__DEFAULT_CLAIM_TTL", "99999999", "default_claim_ttl"),
        ("HTTP__MAX_CONNECTIONS", "0", "max_connections"),
    ];
    let settings = faults.map(|(key, value, _)| (key, value));
    let (status, text) = run(&["serve"], &settings);
    assert!(!status.success(), "{text}");
    for (key, _, name) in faults {
        assert!(text.contains(name), "{key} is not reported:\n{text}");
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_fatal() {
    for store in ["sqlite:/proc/none/chapar.db", "unheardof://localhost/db", "nonsense"] {
        let settings = [
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("METRICS__LISTEN", "127.0.0.1:0"),
            ("CATALOG__URI", store),
            ("POOL__URI", store),
        ];
        let (status, text) = run(&["serve"], &settings);
        assert!(!status.success(), "{store}: {text}");
        assert!(!text.contains("panicked"), "{store}: {text}");
    }
}

#[test]
fn an_address_in_use_is_fatal() {
    let app = TestApp::shared();
    let address = app.address().to_string();
    let settings = [
        ("HTTP__LISTEN", address.as_str()),
        ("METRICS__LISTEN", "127.0.0.1:0"),
        ("CATALOG__URI", "sqlite:other.db"),
        ("POOL__URI", "sqlite:other.db"),
    ];
    let (status, text) = run(&["serve"], &settings);
    assert!(!status.success(), "{text}");
    assert!(text.contains(&address), "the address is not named:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn the_server_logs_its_address() {
    let app = TestApp::start();
    app.wait_for_log(&app.address().to_string());
}
