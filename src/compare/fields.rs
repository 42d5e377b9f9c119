//! Compares two JSON documents by field. The name of a field is its path: `config.Env.MIX_ENV`, `history[2].created_by`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::comparison::{Comparison, Status};
use crate::image::{Image, ImageError, read_json};

/// A field of a manifest or config that differs. A list of scalars is one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its path in the document.
    pub name: String,
    /// The value on the left: a string as it is, another value as JSON. `None` if the field is not set.
    pub left: Option<String>,
    /// The value on the right.
    pub right: Option<String>,
}

/// Parts of the names of variables whose values may be secret.
const SECRET: [&str; 8] = ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "CREDENTIAL", "PRIVATE", "API_KEY", "DATABASE_URL"];

/// Shown instead of such a value.
const HIDDEN: &str = "(not shown)";

/// The differences of two manifests, except the layers and the config's digest and size, which follow from other differences.
pub(super) fn manifests(left: &Image, right: &Image) -> Result<Vec<Field>, ImageError> {
    let read = |image: &Image| {
        let mut value: Value = read_json("the manifest", &image.manifest_bytes)?;
        drop_keys(&mut value, &["layers"]);
        if let Some(config) = value.get_mut("config") {
            drop_keys(config, &["digest", "size"]);
        }
        Ok::<_, ImageError>(value)
    };
    Ok(between(&read(left)?, &read(right)?))
}

/// The differences of two configs, except the diff IDs.
pub(super) fn configs(left: &Image, right: &Image) -> Result<Vec<Field>, ImageError> {
    let read = |image: &Image| {
        let mut value: Value = read_json("the config", &image.config_bytes)?;
        if let Some(rootfs) = value.get_mut("rootfs") {
            drop_keys(rootfs, &["diff_ids"]);
        }
        if let Some(env) = value.pointer_mut("/config/Env") {
            by_name(env);
        }
        Ok::<_, ImageError>(value)
    };
    Ok(between(&read(left)?, &read(right)?))
}

/// Adds a difference for documents with equal fields and different bytes, so that a comparison of different digests is never
/// empty.
pub(super) fn add_encoding_differences(left: &Image, right: &Image, comparison: &mut Comparison) {
    let field = |differ: bool| {
        let (left, right) = (Some("encoded in one way".to_owned()), Some("encoded in another way".to_owned()));
        differ.then(|| Field { name: "its bytes".into(), left, right })
    };
    let are_layers_same =
        comparison.layers.iter().all(|layer| layer.status == Status::Same && layer.differences.is_empty());
    if comparison.config.is_empty() && are_layers_same {
        comparison.config.extend(field(left.config_bytes != right.config_bytes));
    }
    if comparison.is_same() {
        comparison.manifest.extend(field(left.manifest_bytes != right.manifest_bytes));
    }
}

fn drop_keys(value: &mut Value, keys: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        for key in keys {
            map.remove(*key);
        }
    }
}

/// Turns the list of `NAME=value` into a map: the order of variables has no meaning.
fn by_name(env: &mut Value) {
    let Value::Array(pairs) = env else { return };
    let texts = pairs.iter().filter_map(Value::as_str).filter_map(|pair| pair.split_once('='));
    *env = texts.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
}

/// The fields in which two documents differ, by path.
pub(super) fn between(left: &Value, right: &Value) -> Vec<Field> {
    let (mut one, mut other) = (BTreeMap::new(), BTreeMap::new());
    flatten("", left, &mut one);
    flatten("", right, &mut other);
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    differing.map(|name| field(name, one.get(name).cloned(), other.get(name).cloned())).collect()
}

fn field(name: &str, left: Option<String>, right: Option<String>) -> Field {
    let upper = name.to_ascii_uppercase();
    let is_secret = name.starts_with("config.Env.") && SECRET.iter().any(|word| upper.contains(word));
    let shown = |value: Option<String>| if is_secret { value.map(|_| HIDDEN.to_owned()) } else { value };
    Field { name: name.into(), left: shown(left), right: shown(right) }
}

fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        // Go writes `null` or `[]` for a field that is not set.
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, out);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (at, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{at}]"), value, out);
            }
        }
        Value::String(text) => match document(text) {
            Some(inner) => flatten(path, &inner, out),
            None => drop(out.insert(path.into(), text.clone())),
        },
        other => drop(out.insert(path.into(), other.to_string())),
    }
}

/// The JSON object in a string, as labels of tools have it.
fn document(text: &str) -> Option<Value> {
    let value: Value = text.starts_with('{').then(|| serde_json::from_str(text).ok())??;
    value.as_object().is_some_and(|map| !map.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(fields: &[Field]) -> Vec<String> {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        fields.iter().map(|field| format!("{}: {} -> {}", field.name, side(&field.left), side(&field.right))).collect()
    }

    #[test]
    fn fields_are_named_by_their_path() {
        let left =
            json!({"a": {"b": 1, "c": [1, 2]}, "h": [{"x": "1"}, {"x": "2"}], "n": null, "t": "{\"x\": 1, \"y\": 2}"});
        let right = json!({"a": {"b": 2, "c": [2, 1], "d": true}, "h": [{"x": "1"}], "t": "{\"y\":3,\"x\":1}"});
        assert_eq!(
            lines(&between(&left, &right)),
            ["a.b: 1 -> 2", "a.c: [1,2] -> [2,1]", "a.d: - -> true", "h[1].x: 2 -> -", "t.y: 2 -> 3"]
        );
    }

    #[test]
    fn variables_are_compared_by_name_and_secrets_are_not_shown() {
        let env = |pairs: Value| {
            let mut value = json!({"config": {"Env": pairs}});
            by_name(value.pointer_mut("/config/Env").unwrap());
            value
        };
        let left = env(json!(["A=1", "SECRET_KEY_BASE=abc", "B=2"]));
        let right = env(json!(["B=2", "A=3", "SECRET_KEY_BASE=def"]));
        assert_eq!(
            lines(&between(&left, &right)),
            ["config.Env.A: 1 -> 3", "config.Env.SECRET_KEY_BASE: (not shown) -> (not shown)"]
        );
    }
}
