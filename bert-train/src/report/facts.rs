//! Formats the JSON of `run.json` for readers: "not set" for null, "none" for an empty list, file sizes, and thousands
//! separators.

use serde_json::{Map, Value};

use super::scale::grouped;

/// Maximum number of list items shown; a corpus may have thousands of files.
const LISTED: usize = 20;
/// Number of digits shown for a hash.
const HASH_DIGITS: usize = 12;

/// The entries of a JSON object as rows of [`Report::facts`](super::Report::facts); none for any other value.
///
/// ```
/// use bert_train::report::facts;
/// use serde_json::json;
///
/// let rows = facts(&json!({"max_seq_len": 128, "eval_corpus": [], "init": null, "cased": false}));
/// let values: Vec<&str> = rows.iter().map(|(_, value)| value.as_str()).collect();
/// assert_eq!((rows[0].0.as_str(), values), ("max seq len", vec!["128", "none", "not set", "no"]));
/// ```
pub fn facts(object: &Value) -> Vec<(String, String)> {
    let entries = object.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.replace('_', " "), text(value))).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => grouped(&count.to_string()),
            (None, Some(float)) if float == 0.0 || float.abs() >= 1e-4 => float.to_string(),
            (None, Some(float)) => format!("{float:e}"),
            (None, None) => number.to_string(),
        },
        Value::String(text) if is_hash(text) => format!("{}…", &text[..HASH_DIGITS]),
        Value::String(text) => text.clone(),
        Value::Array(items) => list(items.iter().map(text), items.iter().any(Value::is_object)),
        Value::Object(entries) => entry_list(entries),
    }
}

/// Formats a file with its size, or entries as "name value"; only the values if the names are just numbers, as for
/// labels.
fn entry_list(entries: &Map<String, Value>) -> String {
    if let (Some(path), Some(bytes)) = (entries.get("path").and_then(Value::as_str), entries.get("bytes")) {
        return format!("{path} ({})", size(bytes.as_u64().unwrap_or_default()));
    }
    let is_numbered = entries.keys().all(|key| key.bytes().all(|byte| byte.is_ascii_digit()));
    let entry = |(name, value): (&String, &Value)| match is_numbered {
        true => text(value),
        false => format!("{} {}", name.replace('_', " "), text(value)),
    };
    list(entries.iter().map(entry), false)
}

/// Joins items with commas, or with line ends.
fn list(items: impl ExactSizeIterator<Item = String>, is_multiline: bool) -> String {
    let more = items.len().saturating_sub(LISTED);
    let mut items: Vec<String> = items.take(LISTED).collect();
    if items.is_empty() {
        return "none".into();
    }
    if more > 0 {
        items.push(format!("and {} more", grouped(&more.to_string())));
    }
    items.join(if is_multiline { "\n" } else { ", " })
}

fn is_hash(text: &str) -> bool {
    text.len() >= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A number of bytes with a unit.
fn size(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let found = units.into_iter().find(|(unit, _)| bytes as f64 >= *unit);
    found.map_or(format!("{bytes} bytes"), |(unit, name)| format!("{:.1} {name}", bytes as f64 / unit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_for_people() {
        for (value, expected) in [
            (json!(null), "not set"),
            (json!([]), "none"),
            (json!({}), "none"),
            (json!(true), "yes"),
            (json!(30522), "30,522"),
            (json!(-2), "-2"),
            (json!(3.0), "3"),
            (json!(0.0002), "0.0002"),
            (json!(1e-6), "1e-6"),
            (json!("0123456789abcdef".repeat(4)), "0123456789ab…"),
            (json!(["a.txt", "b.txt"]), "a.txt, b.txt"),
            (json!({"algorithm": "adamw", "beta_1": 0.9}), "algorithm adamw, beta 1 0.9"),
            (json!({"0": "bad", "1": "good"}), "bad, good"),
            (
                json!([{"path": "a.txt", "bytes": 1_234_567, "sha256": "x"}, {"path": "b", "bytes": 7}]),
                "a.txt (1.2 MB)\nb (7 bytes)",
            ),
        ] {
            assert_eq!(text(&value), expected, "{value}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let files: Vec<Value> = (0..1025).map(|index| json!(format!("{index}.txt"))).collect();
        let shown = text(&Value::from(files));
        assert!(shown.ends_with("19.txt, and 1,005 more"), "{shown}");
    }
}
