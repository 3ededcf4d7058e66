//! The words of the code and its documents are those of the field. `banned-words.txt` lists the
//! ones that are not, with what to write instead.

use std::path::Path;

use regex::{Regex, RegexBuilder};

use crate::repository;

const LIST: &str = include_str!("banned-words.txt");

/// A word, or a phrase, that no file may contain.
struct Banned {
    pattern: Regex,
    instead: &'static str,
    /// Where it is banned: in files with this extension, or, if it ends in `/`, below this folder.
    /// Everywhere, if empty.
    scope: &'static str,
}

/// Returns what follows a keyword in the lines that begin with it.
fn values(keyword: &'static str) -> impl Iterator<Item = &'static str> {
    lines().filter_map(move |line| line.strip_prefix(keyword)).map(str::trim)
}

/// Returns the phrases in which a banned word has another meaning.
fn allowed() -> Regex {
    let phrases: Vec<_> = values("allow ").map(|phrase| format!("(?:{phrase})")).collect();
    regex(&phrases.join("|"))
}

fn regex(pattern: &str) -> Regex {
    RegexBuilder::new(pattern).case_insensitive(true).build().expect("a pattern is valid")
}

fn lines() -> impl Iterator<Item = &'static str> {
    LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn banned() -> Vec<Banned> {
    let rules = lines().filter(|line| line.contains(" => "));
    let parse = |line: &'static str| {
        let (pattern, instead) = line.split_once(" => ").expect("a rule is `pattern => word`");
        let (scope, pattern) = pattern.split_once(": ").unwrap_or(("", pattern));
        Banned { pattern: regex(pattern.trim()), instead: instead.trim(), scope }
    };
    rules.map(parse).collect()
}

/// Splits identifiers into words, so that `two_words`, `TwoWords` and `two words` read alike.
fn words(line: &str) -> String {
    let mut words = String::with_capacity(line.len() + 8);
    let mut after_lower = false;
    for character in line.chars() {
        if after_lower && character.is_uppercase() {
            words.push(' ');
        }
        words.push(if character == '_' { ' ' } else { character });
        after_lower = character.is_lowercase() || character.is_numeric();
    }
    words
}

fn check(path: &Path, text: &str, banned: &[Banned], allowed: &Regex) -> Vec<String> {
    let applies = |rule: &&Banned| {
        rule.scope.is_empty()
            || path.extension().is_some_and(|extension| extension == rule.scope)
            || (rule.scope.ends_with('/') && path.starts_with(rule.scope))
    };
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = words(line);
        let line = allowed.replace_all(&line, "…");
        for rule in banned.iter().filter(applies) {
            if let Some(hit) = rule.pattern.find(&line) {
                let (path, number) = (path.display(), number + 1);
                found.push(format!("{path}:{number}: \"{}\": {}", hit.as_str(), rule.instead));
            }
        }
    }
    found
}

#[test]
fn no_file_contains_a_banned_word() {
    let (banned, allowed) = (banned(), allowed());
    let exempt: Vec<_> = values("exempt ").collect();
    let is_exempt = |path: &Path| exempt.iter().any(|name| path == Path::new(name));
    for name in &exempt {
        assert!(repository::root().join(name).exists(), "{name} is exempt, but is gone");
    }
    let mut found = Vec::new();
    for path in repository::tracked(&["rs", "lua", "sql", "md", "toml", "py", "sh"]) {
        if !is_exempt(&path) {
            found.extend(check(&path, &repository::read(&path), &banned, &allowed));
        }
    }
    assert!(found.is_empty(), "{} banned words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn identifiers_are_read_as_words() {
    assert_eq!(words("fn two_words(TwoWords: HTTP2Body)"), "fn two words(Two Words: HTTP2 Body)");
    let banned = [Banned { pattern: regex(r"\btwo words\b"), instead: "one word", scope: "" }];
    let allowed = regex("in two words only");
    for text in ["two_words();", "struct TwoWords;", "// These are two words."] {
        assert_eq!(check(Path::new("a.rs"), text, &banned, &allowed).len(), 1, "{text}");
    }
    for text in ["two long words", "a name in two words only"] {
        assert!(check(Path::new("a.rs"), text, &banned, &allowed).is_empty(), "{text}");
    }
}
