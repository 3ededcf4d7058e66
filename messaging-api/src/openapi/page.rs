//! The OpenAPI document as an HTML page that loads no resources and runs no scripts.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The placeholder for the nonce of a response.
pub(crate) const NONCE: &str = "@nonce@";

const STYLE: &str = include_str!("page.css");

/// Renders an OpenAPI document as HTML.
pub(crate) fn page(document: &Value) -> String {
    let page = Page { document, html: String::new() };
    page.render()
}

struct Page<'d> {
    document: &'d Value,
    html: String,
}

/// An operation of the document, with its path and method.
struct Entry<'d> {
    path: &'d str,
    method: &'d str,
    operation: &'d Value,
}

impl<'d> Page<'d> {
    fn render(mut self) -> String {
        let info = &self.document["info"];
        let (title, version) = (escape(&info["title"]), escape(&info["version"]));
        self.html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title} {version}</title><style nonce=\"{NONCE}\">{STYLE}</style></head><body>"
        );
        self.contents();
        self.add(format_args!("<main><h1>{title}</h1><p class=\"soft\">Version {version}, "));
        self.add("licence ");
        self.add(escape(&info["license"]["name"]));
        self.add(". For programs: <a href=\"/v2/openapi.json\">OpenAPI 3.1</a>.</p>");
        self.prose(&info["description"]);
        self.add(
            "<p>In the examples <code>$CHAPAR</code> is the address of the service:</p>\
             <pre>CHAPAR=http://127.0.0.1:8888</pre>",
        );
        for tag in list(&self.document["tags"]) {
            self.add(format_args!("<section><h2>{}</h2>", escape(&tag["name"])));
            self.prose(&tag["description"]);
            for entry in self.tagged(&tag["name"]) {
                self.operation(&entry);
            }
            self.add("</section>");
        }
        self.add("<section><h2 id=\"schemas\">Schemas</h2>");
        for (name, schema) in fields(&self.document["components"]["schemas"]) {
            self.add(format_args!("<article id=\"schema-{name}\"><h3>{name}</h3>"));
            self.prose(&schema["description"]);
            self.schema(schema);
            self.add("</article>");
        }
        self.add("</section></main></body></html>");
        self.html
    }

    /// Adds the table of contents.
    fn contents(&mut self) {
        self.add("<nav><strong>");
        self.add(escape(&self.document["info"]["title"]));
        self.add("</strong>");
        for tag in list(&self.document["tags"]) {
            self.add(format_args!("<h2>{}</h2><ul>", escape(&tag["name"])));
            for Entry { method, operation, .. } in self.tagged(&tag["name"]) {
                let (id, summary) =
                    (escape(&operation["operationId"]), escape(&operation["summary"]));
                let name = method.to_uppercase();
                self.add(format_args!(
                    "<li><span class=\"method {method}\">{name}</span><a href=\"#{id}\">{summary}</a>"
                ));
            }
            self.add("</ul>");
        }
        self.add("<h2><a href=\"#schemas\">Schemas</a></h2></nav>");
    }

    fn tagged(&self, tag: &Value) -> Vec<Entry<'d>> {
        fields(&self.document["paths"])
            .flat_map(|(path, item)| {
                fields(item).map(move |(method, operation)| Entry { path, method, operation })
            })
            .filter(|entry| list(&entry.operation["tags"]).any(|name| name == tag))
            .collect()
    }

    fn operation(&mut self, entry: &Entry<'d>) {
        let Entry { path, method, operation } = *entry;
        let id = escape(&operation["operationId"]);
        let (name, path_shown) = (method.to_uppercase(), plain(path));
        self.add(format_args!("<article id=\"{id}\"><h3>{}</h3>", escape(&operation["summary"])));
        self.add(format_args!(
            "<p class=\"call\"><code><span class=\"method {method}\">{name}</span> {path_shown}\
             </code> <span class=\"soft\">{id}</span></p>"
        ));
        self.prose(&operation["description"]);

        let parameters: Vec<&Value> =
            list(&operation["parameters"]).map(|parameter| self.resolve(parameter)).collect();
        if !parameters.is_empty() {
            self.add("<h4>Parameters</h4><table>");
            for parameter in &parameters {
                let needed = if parameter["required"] == true { ", required" } else { "" };
                self.add(format_args!(
                    "<tr><th><code>{}</code><br><span class=\"soft\">{}{needed}</span><td>",
                    escape(&parameter["name"]),
                    escape(&parameter["in"]),
                ));
                self.prose(&parameter["description"]);
                self.kind(&parameter["schema"]);
            }
            self.add("</table>");
        }
        let body = &operation["requestBody"];
        for (media, content) in fields(&body["content"]) {
            let needed = if body["required"] == true { "required" } else { "optional" };
            self.add("<h4>Body</h4><table>");
            self.add(format_args!(
                "<tr><th><code>{}</code><br><span class=\"soft\">{needed}</span><td>",
                plain(media)
            ));
            self.kind(&content["schema"]);
            self.add("</table>");
        }
        self.add("<h4>Responses</h4><table>");
        for (status, response) in fields(&operation["responses"]) {
            self.answer(status, response);
        }
        self.add("</table><h4>Example</h4><pre>");
        let example = curl(entry, &parameters);
        self.add(plain(&example));
        self.add("</pre></article>");
    }

    fn answer(&mut self, status: &str, response: &'d Value) {
        // The body of errors is described once, at the top of the page.
        let is_error = status.starts_with(['4', '5']);
        let response = self.resolve(response);
        self.add(format_args!("<tr><th><code>{status}</code><td>"));
        self.prose(&response["description"]);
        for (media, content) in fields(&response["content"]).filter(|_| !is_error) {
            self.kind(&content["schema"]);
            self.add(format_args!(" <span class=\"soft\">in <code>{media}</code></span>"));
        }
        let headers = fields(&response["headers"])
            .filter(|(name, header)| *name != "Vary" && !header["$ref"].is_string());
        for (name, header) in headers {
            self.add(format_args!("<p class=\"soft\"><code>{}</code>: ", plain(name)));
            self.add(marked(header["description"].as_str().unwrap_or_default()));
            self.add("</p>");
        }
    }

    /// Adds the properties of an object schema, or one line for any other schema.
    fn schema(&mut self, schema: &Value) {
        if !schema["properties"].is_object() {
            self.add("<p>");
            self.kind(schema);
            self.add("</p>");
            return;
        }
        self.add("<table>");
        for (name, property) in fields(&schema["properties"]) {
            let needed = list(&schema["required"]).any(|required| required == name);
            let needed = if needed { "<br><span class=\"soft\">required</span>" } else { "" };
            self.add(format_args!("<tr><th><code>{}</code>{needed}<td>", plain(name)));
            self.prose(&property["description"]);
            self.kind(property);
        }
        self.add("</table>");
    }

    /// Adds one line that describes the values of a schema.
    fn kind(&mut self, schema: &Value) {
        self.add("<span class=\"soft\">");
        self.add(kind(schema));
        if !schema["default"].is_null() {
            self.add(format_args!("; default <code>{}</code>", escape(&schema["default"])));
        }
        self.add("</span>");
    }

    /// Adds paragraphs. Text between backquotes is code.
    fn prose(&mut self, text: &Value) {
        for paragraph in text.as_str().into_iter().flat_map(|text| text.split("\n\n")) {
            self.add(format_args!("<p>{}</p>", marked(paragraph)));
        }
    }

    /// Resolves a reference within the document.
    fn resolve(&self, value: &'d Value) -> &'d Value {
        let target = value["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        target.and_then(|path| self.document.pointer(path)).unwrap_or(value)
    }

    fn add(&mut self, html: impl std::fmt::Display) {
        let _ = write!(self.html, "{html}"); // writing to a String cannot fail
    }
}

fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    let choices = list(&schema["anyOf"]).chain(list(&schema["oneOf"]));
    let choices: Vec<String> = choices.map(kind).collect();
    if !choices.is_empty() {
        return choices.join(", or ");
    }
    if schema["enum"].is_array() {
        let values = list(&schema["enum"])
            .map(|value| format!("<code>{}</code>", plain(&value.to_string())));
        return values.collect::<Vec<_>>().join(" ");
    }
    let mut types: Vec<&str> = schema["type"].as_str().into_iter().collect();
    types.extend(list(&schema["type"]).filter_map(Value::as_str));
    let mut text = if types.is_empty() { "any value".to_owned() } else { types.join(" or ") };
    if schema["items"].is_object() {
        text = format!("{text} of {}", kind(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        text = format!("{text} of {}", kind(&schema["additionalProperties"]));
    }
    let properties: Vec<String> = fields(&schema["properties"])
        .map(|(name, property)| format!("<code>{}</code> ({})", plain(name), kind(property)))
        .collect();
    if !properties.is_empty() {
        text = format!("{text} with {}", properties.join(", "));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ] {
        let _ = match (&schema[least], &schema[most]) {
            (Value::Null, Value::Null) => Ok(()),
            (least, Value::Null) => write!(text, ", {least} or more{unit}"),
            (Value::Null, most) => write!(text, ", at most {most}{unit}"),
            (least, most) => write!(text, ", {least} to {most}{unit}"),
        };
    }
    for (key, name) in [("format", "format"), ("pattern", "matching")] {
        if let Some(value) = schema[key].as_str() {
            let _ = write!(text, ", {name} <code>{}</code>", plain(value));
        }
    }
    text
}

/// Returns a curl command that calls an operation.
fn curl(entry: &Entry<'_>, parameters: &[&Value]) -> String {
    let Entry { path, method, operation } = entry;
    let mut path = (*path).to_owned();
    let mut headers = String::new();
    for parameter in parameters.iter().filter(|parameter| parameter["required"] == true) {
        let name = parameter["name"].as_str().unwrap_or_default();
        let value = parameter["example"].as_str().unwrap_or_default();
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), value);
        } else {
            let _ = write!(headers, " \\\n     -H '{name}: {value}'");
        }
    }
    if let Some(query) = operation["x-example-query"].as_str() {
        path.extend(["?", query]);
    }
    let how = match *method {
        "get" => String::new(),
        "head" => "--head ".to_owned(),
        method => format!("-X {} ", method.to_uppercase()),
    };
    let mut command = format!("curl {how}\"$CHAPAR{path}\"{headers}");
    for (media, content) in fields(&operation["requestBody"]["content"]) {
        let _ = write!(
            command,
            " \\\n     -H 'Content-Type: {media}' \\\n     -d '{}'",
            content["example"]
        );
    }
    command
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

/// Escapes a text, or a value as JSON, for HTML.
fn escape(value: &Value) -> String {
    value.as_str().map_or_else(|| plain(&value.to_string()), plain)
}

fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escapes a text for HTML. Text between backquotes is code.
fn marked(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in plain(text).split('`').enumerate() {
        let (open, close) = if index % 2 == 1 { ("<code>", "</code>") } else { ("", "") };
        html.extend([open, part, close]);
    }
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn markup_in_a_text_is_escaped() {
        assert_eq!(marked("a `<b>` & \"c\""), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
    }

    #[test]
    fn a_schema_is_described_in_one_line() {
        for (schema, line) in [
            (json!({}), "any value"),
            (json!({"type": ["integer", "null"], "minimum": 60}), "integer or null, 60 or more"),
            (json!({"$ref": "#/components/schemas/Link"}), "<a href=\"#schema-Link\">Link</a>"),
            (
                json!({"type": "array", "items": {"enum": ["a"]}}),
                "array of <code>&quot;a&quot;</code>",
            ),
            (json!({"anyOf": [{"type": "null"}, {"type": "object"}]}), "null, or object"),
        ] {
            assert_eq!(kind(&schema), line, "{schema}");
        }
    }
}
