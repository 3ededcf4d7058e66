//! Listing and counting the queues of a project.

use serde_json::Value;

use super::{
    TestCatalog,
    builders::{key, limit, metadata},
};
use crate::{
    Page,
    catalog::{MetadataFilter, QueueFilter},
    domain::{Metadata, ProjectId, QueueRecord},
};

fn project(id: &str) -> ProjectId {
    id.parse().unwrap()
}

fn filter(n: u32) -> QueueFilter {
    QueueFilter { after: None, limit: limit(n), name_contains: None, metadata: Vec::new() }
}

fn equals(key: &str, json: &str) -> MetadataFilter {
    MetadataFilter { key: key.to_owned(), value: serde_json::from_str(json).unwrap() }
}

impl TestCatalog {
    async fn queues(&self, project: &str, names: &[&str]) {
        for name in names {
            self.queue(&key(project, name), &Metadata::default()).await;
        }
    }

    async fn page(&self, project_id: &str, filter: &QueueFilter) -> Page<QueueRecord> {
        self.catalog.list(&project(project_id), filter).await.unwrap()
    }

    /// Returns the names in one page of project `p`, and whether more follow.
    async fn names(&self, filter: &QueueFilter) -> (Vec<String>, bool) {
        let page = self.page("p", filter).await.map(|r| r.queue.key.name.to_string());
        let is_after = |name: &String| filter.after.as_ref().is_none_or(|after| name > after);
        assert!(page.items.iter().all(is_after), "a page repeats earlier names");
        (page.items, page.more)
    }

    /// Checks which queues of project `p` match the filter.
    async fn assert_matches(&self, filter: &QueueFilter, expected: &[&str]) {
        let (names, more) = self.names(filter).await;
        assert_eq!(
            (names, more),
            (expected.iter().map(ToString::to_string).collect(), false),
            "{filter:?}"
        );
    }
}

pub async fn a_project_without_queues_has_an_empty_list(catalog: &TestCatalog) {
    assert_eq!(catalog.page("p", &filter(10)).await, Page::empty());
    assert_eq!(catalog.catalog.count(&project("p")).await.unwrap(), 0);
}

pub async fn queues_are_listed_in_byte_order(catalog: &TestCatalog) {
    let sorted = ["-", ".", "1", "10", "2", "A", "Z", "_", "a", "a-", "a.", "a0", "aA", "a_", "b"];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(3, 9);
    catalog.queues("p", &shuffled).await;
    catalog.assert_matches(&filter(100), &sorted).await;
    let page = catalog.page("p", &filter(100)).await;
    for record in page.items {
        assert_eq!(catalog.get(&record.queue.key).await, Some(record));
    }
}

pub async fn pages_cover_the_whole_list_once(catalog: &TestCatalog) {
    let names: Vec<_> = (10..35).map(|n| format!("q{n}")).collect();
    catalog.queues("p", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (n, sizes) in [(10, vec![10, 10, 5]), (5, vec![5; 5]), (25, vec![25]), (26, vec![25])] {
        let (mut found, mut found_sizes, mut filter) = (Vec::new(), Vec::new(), filter(n));
        loop {
            let (names, more) = catalog.names(&filter).await;
            found_sizes.push(names.len());
            found.extend(names);
            filter.after = found.last().cloned();
            if !more {
                break;
            }
        }
        assert_eq!((&found, found_sizes), (&names, sizes));
    }
}

pub async fn a_marker_may_be_any_text(catalog: &TestCatalog) {
    catalog.queues("p", &["B", "a", "c"]).await;
    for (after, expected) in [
        ("", &["B", "a", "c"][..]),
        ("%", &["B", "a", "c"]),
        ("A", &["B", "a", "c"]),
        ("B", &["a", "c"]),
        ("B\0", &["a", "c"]),
        ("a", &["c"]),
        ("b'", &["c"]),
        ("c", &[]),
        ("\u{e9}", &[]),
        ("\u{1f600}", &[]),
    ] {
        let filter = QueueFilter { after: Some(after.to_owned()), ..filter(10) };
        catalog.assert_matches(&filter, expected).await;
    }
    catalog.delete(&key("p", "a")).await;
    let filter = QueueFilter { after: Some("a".to_owned()), ..filter(10) };
    catalog.assert_matches(&filter, &["c"]).await;
}

pub async fn a_name_filter_is_plain_text(catalog: &TestCatalog) {
    catalog.queues("p", &["a-b", "a.b", "aXb", "a_b", "axb", "bbb"]).await;
    for (part, expected) in [
        ("a.b", &["a.b"][..]),
        ("_", &["a_b"]),
        ("a_b", &["a_b"]),
        ("x", &["axb"]),
        ("X", &["aXb"]),
        ("b", &["a-b", "a.b", "aXb", "a_b", "axb", "bbb"]),
        ("bb", &["bbb"]),
        ("axb", &["axb"]),
        ("", &["a-b", "a.b", "aXb", "a_b", "axb", "bbb"]),
        ("%", &[]),
        ("a%b", &[]),
        ("*", &[]),
        ("a*", &[]),
        ("?", &[]),
        ("[a-z]", &[]),
        (".*", &[]),
        ("^a", &[]),
        ("\\", &[]),
        ("'", &[]),
        ("\0", &[]),
        ("\u{e9}", &[]),
        ("bbbb", &[]),
    ] {
        let filter = QueueFilter { name_contains: Some(part.to_owned()), ..filter(10) };
        catalog.assert_matches(&filter, expected).await;
    }
}

pub async fn a_metadata_filter_compares_values(catalog: &TestCatalog) {
    for (name, value) in [
        ("float", "1.5"),
        ("int", "1"),
        ("list", "[1]"),
        ("null", "null"),
        ("object", r#"{"b":1}"#),
        ("text", r#""1""#),
        ("true", "true"),
        ("upper", r#""A""#),
        ("lower", r#""a""#),
    ] {
        let metadata = metadata(&format!(r#"{{"a":{value},"z":1}}"#));
        catalog.queue(&key("p", name), &metadata).await;
    }
    catalog.queue(&key("p", "unset"), &Metadata::default()).await;
    for (value, expected) in [
        ("1", &["int"][..]),
        ("1.0", &["int"]),
        ("1.5", &["float"]),
        (r#""1""#, &["text"]),
        ("true", &["true"]),
        ("null", &["null"]),
        ("[1]", &["list"]),
        (r#"{"b":1}"#, &["object"]),
        (r#""a""#, &["lower"]),
        (r#""A""#, &["upper"]),
        ("false", &[]),
        ("0", &[]),
        ("2", &[]),
        (r#""""#, &[]),
        (r#""%""#, &[]),
        (r#""' OR 1=1 --""#, &[]),
    ] {
        let filter = QueueFilter { metadata: vec![equals("a", value)], ..filter(20) };
        catalog.assert_matches(&filter, expected).await;
    }
}

pub async fn a_metadata_filter_accepts_any_key(catalog: &TestCatalog) {
    let keys = ["a", "a.b", "a b", "A", "$", "$.a", "'", "\"", "a[0]", "", "_max_ttl", "\u{e9}"];
    for (n, name) in keys.iter().enumerate() {
        let map = serde_json::Map::from_iter([((*name).to_owned(), Value::from(7))]);
        catalog.queue(&key("p", &format!("q{n:02}")), &map.into()).await;
    }
    let nested = metadata(r#"{"x":{"a":7,"b":7},"list":[7]}"#);
    catalog.queue(&key("p", "nested"), &nested).await;
    for (n, name) in keys.iter().enumerate() {
        let filter = QueueFilter { metadata: vec![equals(name, "7")], ..filter(20) };
        catalog.assert_matches(&filter, &[&format!("q{n:02}")]).await;
    }
    for name in ["b", "x.a", "list[0]", "*", "%"] {
        let filter = QueueFilter { metadata: vec![equals(name, "7")], ..filter(20) };
        catalog.assert_matches(&filter, &[]).await;
    }
}

pub async fn filters_are_combined(catalog: &TestCatalog) {
    for (name, json) in [
        ("a1", r#"{"colour":"red","size":1}"#),
        ("a2", r#"{"colour":"red","size":2}"#),
        ("a3", r#"{"colour":"blue","size":1}"#),
        ("a4", r#"{"colour":"red","size":1,"more":0}"#),
        ("b5", r#"{"colour":"red","size":1}"#),
    ] {
        catalog.queue(&key("p", name), &metadata(json)).await;
    }
    let both = vec![equals("colour", "\"red\""), equals("size", "1")];
    let by_metadata = QueueFilter { metadata: both, ..filter(10) };
    catalog.assert_matches(&by_metadata, &["a1", "a4", "b5"]).await;
    let by_name = QueueFilter { name_contains: Some("a".to_owned()), ..by_metadata.clone() };
    catalog.assert_matches(&by_name, &["a1", "a4"]).await;
    let after_a1 = QueueFilter { after: Some("a1".to_owned()), ..by_name };
    catalog.assert_matches(&after_a1, &["a4"]).await;
    let contradiction = vec![equals("size", "1"), equals("size", "2")];
    catalog.assert_matches(&QueueFilter { metadata: contradiction, ..filter(10) }, &[]).await;

    let read = catalog.get(&key("p", "a1")).await.unwrap();
    catalog.try_update(&read, &metadata(r#"{"colour":"blue","size":1}"#)).await.unwrap();
    catalog.assert_matches(&by_metadata, &["a4", "b5"]).await;
}

pub async fn a_filtered_page_is_full_while_more_queues_match(catalog: &TestCatalog) {
    let mut expected = Vec::new();
    for n in 0..500 {
        let name = format!("q{n:03}");
        let matching = n > 300 && n % 7 == 0;
        let metadata = metadata(&format!(r#"{{"marked":{matching},"n":{n}}}"#));
        catalog.queue(&key("p", &name), &metadata).await;
        expected.extend(matching.then_some(name));
    }
    let mut filter = QueueFilter { metadata: vec![equals("marked", "true")], ..filter(10) };
    let mut found = Vec::new();
    loop {
        let (names, more) = catalog.names(&filter).await;
        assert_eq!(names.len(), 10.min(expected.len() - found.len()));
        found.extend(names);
        assert_eq!(more, found.len() < expected.len());
        filter.after = found.last().cloned();
        if !more {
            break;
        }
    }
    assert_eq!(found, expected);
    let one = QueueFilter { name_contains: Some("499".to_owned()), ..self::filter(1) };
    catalog.assert_matches(&one, &["q499"]).await;
}

pub async fn projects_list_only_their_own_queues(catalog: &TestCatalog) {
    let projects = ["p", "P", "p ", "p%", "%", "_", "p'", "p\"", "\u{e9}", "e\u{301}"];
    let long = "\u{1f600}".repeat(256);
    for (n, project) in projects.iter().copied().chain([long.as_str()]).enumerate() {
        let names: Vec<_> = (0..=n).map(|i| format!("q{n}-{i:02}")).collect();
        catalog.queues(project, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    for (n, id) in projects.iter().copied().chain([long.as_str()]).enumerate() {
        assert_eq!(catalog.catalog.count(&project(id)).await.unwrap(), n as u64 + 1);
        let page = catalog.page(id, &filter(100)).await;
        assert_eq!(page.items.len(), n + 1);
        for record in page.items {
            assert_eq!(record.queue.key.project.as_str(), id);
            assert!(record.queue.key.name.as_str().starts_with(&format!("q{n}-")));
        }
    }
    assert_eq!(catalog.page("unknown", &filter(100)).await, Page::empty());
}

pub async fn deleted_queues_are_not_listed_or_counted(catalog: &TestCatalog) {
    catalog.queues("p", &["a", "b", "c"]).await;
    catalog.delete(&key("p", "b")).await;
    catalog.assert_matches(&filter(10), &["a", "c"]).await;
    assert_eq!(catalog.catalog.count(&project("p")).await.unwrap(), 2);
    catalog.queues("p", &["b", "a"]).await;
    catalog.assert_matches(&filter(10), &["a", "b", "c"]).await;
    assert_eq!(catalog.catalog.count(&project("p")).await.unwrap(), 3);
}
