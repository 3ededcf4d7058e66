//! Content negotiation: the media types that a client accepts (RFC 9110).

use crate::error::Form;

/// Returns whether `Accept` admits `application/json`.
pub(crate) fn admits_json(accept: Option<&str>) -> bool {
    match accept {
        None | Some("*/*" | "application/json") => true,
        Some(accept) => quality(accept, "application", "json") > 0.0,
    }
}

/// Returns the form of errors that a client prefers; JSON if it has no preference.
pub(crate) fn error_form(accept: Option<&str>) -> Form {
    let accept = match accept {
        None | Some("*/*" | "application/json") => return Form::Json,
        Some(accept) => accept,
    };
    let json = quality(accept, "application", "json");
    let (xml, media_type) = ["application/xml", "text/xml"]
        .map(|name| {
            let (kind, subtype) = name.split_once('/').unwrap_or((name, ""));
            (quality(accept, kind, subtype), name)
        })
        .into_iter()
        .fold((0.0, ""), |best, next| if next.0 > best.0 { next } else { best });
    let lower = accept.to_ascii_lowercase();
    if json <= 0.0 && xml <= 0.0 {
        return match () {
            () if lower.contains("+json") => Form::Json,
            () if lower.contains("+xml") => Form::Xml("application/xml"),
            () => Form::Empty,
        };
    }
    if xml > json { Form::Xml(media_type) } else { Form::Json }
}

/// Returns the quality that the most specific matching range of `accept` gives to a media type; 0
/// if no range matches.
fn quality(accept: &str, kind: &str, subtype: &str) -> f32 {
    let mut best = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|name| name.split_once('/'))
        else {
            continue;
        };
        let specific = match (range_kind, range_subtype) {
            ("*", "*") => 1,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 2,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => 3,
            _ => continue,
        };
        let q = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
        if specific > best.0 || (specific == best.0 && q > best.1) {
            best = (specific, q);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_admitted_by_its_name_and_by_wildcards() {
        for accept in [
            "*/*",
            "application/*",
            "application/json",
            "text/html, application/json;q=0.1",
            "Application/JSON; charset=utf-8",
        ] {
            assert!(admits_json(Some(accept)), "{accept}");
        }
        for accept in [
            "text/plain",
            "application/xml",
            "application/json;q=0",
            "json",
            "",
            "*/*, application/json;q=0",
        ] {
            assert!(!admits_json(Some(accept)), "{accept}");
        }
        assert!(admits_json(None));
    }

    #[test]
    fn errors_are_xml_only_for_those_who_prefer_it() {
        for (accept, form) in [
            ("application/xml", Form::Xml("application/xml")),
            ("text/xml, application/json;q=0.5", Form::Xml("text/xml")),
            ("application/xml, application/json", Form::Json),
            ("application/atom+xml", Form::Xml("application/xml")),
            ("application/problem+json", Form::Json),
            ("text/plain", Form::Empty),
            ("application/xml, */*;q=0.1", Form::Xml("application/xml")),
        ] {
            assert_eq!(error_form(Some(accept)), form, "{accept}");
        }
    }
}
