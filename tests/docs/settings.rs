//! `docs/phial.schema.json` and the tables of keys in `docs/configuration.md` follow from `src/config/keys.rs`; parser, schema and
//! documents accept and refuse the same files. `just docs` writes what is generated.

use std::collections::BTreeSet;
use std::fs;

use boon::{Compiler, Schemas};
use phial::config::{KEYS, NAME, SettingKey, TestFlags, TestPlan, ValueKind, parse};
use serde_json::{Value, json};

use super::markdown::{documents, repository};
use super::{between, generated};

const SCHEMA: &str = "docs/phial.schema.json";

/// The values that a key takes, as JSON schema.
fn values(kind: ValueKind) -> Value {
    let text = json!({ "type": "string" });
    let command = json!({ "anyOf": [
        { "type": "string", "pattern": "\\S" },
        { "type": "array", "items": text, "minItems": 1 },
    ] });
    match kind {
        ValueKind::Text => text,
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Port => json!({ "type": "integer", "minimum": 0, "maximum": 65535 }),
        ValueKind::List => json!({ "type": "array", "items": text }),
        ValueKind::Table => json!({ "type": "object", "additionalProperties": text }),
        ValueKind::Variables => {
            json!({ "type": "object", "additionalProperties": text, "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" } })
        }
        ValueKind::OneOf(texts) => json!({ "enum": texts }),
        ValueKind::Command => command,
        ValueKind::Commands => json!({ "type": "array", "minItems": 1, "items": { "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "name": { "type": "string" }, "command": command },
                "required": ["name", "command"],
            },
        ] } }),
        ValueKind::Time => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+[smhdw]?$" },
        ] }),
        ValueKind::Size => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+ *([kKMGT]?B)?$" },
        ] }),
        ValueKind::Count => json!({ "type": "integer", "minimum": 16 }),
    }
}

/// What an editor shows: text without links.
fn description(key: &SettingKey) -> String {
    let default = key.default.map_or(String::new(), |default| format!(" Default: {default}."));
    let mut text = format!("{}{default}", key.doc);
    while let Some((start, rest)) = text.split_once("](").map(|(start, rest)| (start.to_owned(), rest.to_owned())) {
        let (_, after) = rest.split_once(')').expect("the end of a link");
        let (before, name) = start.rsplit_once('[').expect("the beginning of a link");
        text = format!("{before}{name}{after}");
    }
    text
}

/// The schema of a table, and of the tables in it: `keys` with what is left of their paths.
fn table(keys: &[(Vec<&'static str>, &SettingKey)]) -> Value {
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": {} });
    let mut required = Vec::new();
    let mut done = BTreeSet::new();
    for (path, key) in keys {
        let name = path[0];
        if path.len() == 1 {
            let mut value = values(key.kind);
            value["description"] = description(key).into();
            schema["properties"][name] = value;
            if key.default.is_none() {
                required.push(name);
            }
        } else if done.insert(name) {
            let inner: Vec<_> =
                keys.iter().filter(|(path, _)| path[0] == name).map(|(path, key)| (path[1..].to_vec(), *key)).collect();
            if name == NAME {
                let host = json!({ "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" });
                return json!({ "type": "object", "propertyNames": host, "additionalProperties": table(&inner) });
            }
            schema["properties"][name] = table(&inner);
        }
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn schema() -> Value {
    let keys: Vec<_> = KEYS.iter().map(|key| (key.parts().collect(), key)).collect();
    let mut schema = table(&keys);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "phial.toml".into();
    schema
}

fn kind(kind: ValueKind) -> String {
    match kind {
        ValueKind::Text => "text".into(),
        ValueKind::Flag => "flag".into(),
        ValueKind::Port => "port".into(),
        ValueKind::List => "list".into(),
        ValueKind::Table => "table".into(),
        ValueKind::Variables => "variables".into(),
        ValueKind::OneOf(texts) => texts.iter().map(|text| format!("`\"{text}\"`")).collect::<Vec<_>>().join(", "),
        ValueKind::Command => "command".into(),
        ValueKind::Commands => "commands".into(),
        ValueKind::Time => "time".into(),
        ValueKind::Size => "size".into(),
        ValueKind::Count => "number".into(),
    }
}

/// The document's part: a table of keys for each table of the file.
fn reference() -> String {
    let mut text = String::new();
    let mut last = "";
    for key in &KEYS {
        let (table, name) = key.path.rsplit_once('.').expect("a table");
        if table != last {
            let head = format!("\n## `[{table}]`\n\n| key | type | default | description |\n|---|---|---|---|\n");
            text.push_str(&head);
            last = table;
        }
        let default = key.default.unwrap_or("required");
        let row = format!("| `{name}` | {} | {default} | {} |\n", kind(key.kind), key.doc);
        text.push_str(&row);
    }
    format!("{text}\n")
}

/// A value for each key, as TOML.
fn example(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Text => "'oci:x'",
        ValueKind::Flag => "true",
        ValueKind::Port => "5432",
        ValueKind::List => "['prod']",
        ValueKind::Table | ValueKind::Variables => "{ A = 'b' }",
        ValueKind::OneOf(texts) => match texts[0] {
            "host" => "'host'",
            "fixed" => "'fixed'",
            _ => "'gzip'",
        },
        ValueKind::Command => "['mix', 'test']",
        ValueKind::Commands => "['mix test', { name = 'lint', command = 'mix credo' }]",
        ValueKind::Time => "'10m'",
        ValueKind::Size => "'10MB'",
        ValueKind::Count => "100",
    }
}

/// A file with this key alone, and what must be beside it.
fn file_with(path: &str, value: &str) -> String {
    let path = path.replace(NAME, "db");
    let image = if path.starts_with("test.services.db.") && path.rsplit('.').next() != Some("image") {
        "test.services.db.image = 'oci:db'\n"
    } else {
        ""
    };
    format!("{image}{path} = {value}\n")
}

/// Whether a file fits the schema.
fn fits(toml: &str) -> bool {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("phial.schema.json", schema()).expect("a schema");
    let index = compiler.compile("phial.schema.json", &mut schemas).expect("a schema");
    let file: toml::Table = toml::from_str(toml).expect("TOML");
    schemas.validate(&serde_json::to_value(file).expect("JSON"), index).is_ok()
}

#[test]
fn the_schema_follows_from_the_table_of_keys() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("JSON"));
    generated(SCHEMA, &|_| text.clone());
}

#[test]
fn the_documented_keys_follow_from_the_table_of_keys() {
    generated("docs/configuration.md", &|text| between(text, "keys", &reference()));
}

#[test]
fn each_key_is_known_to_the_parser_the_schema_and_the_types() {
    let empty = format!("{:?}", parse("phial.toml", "").expect("an empty file"));
    for key in &KEYS {
        let file = file_with(key.path, example(key.kind));
        let read = parse("phial.toml", &file).unwrap_or_else(|error| panic!("{file}{error}"));
        assert_ne!(format!("{read:?}"), empty, "the types of the file do not have `{}`", key.path);
        assert!(fits(&file), "{file}");
        let misspelled = file_with(&format!("{}x", key.path), example(key.kind));
        assert!(parse("phial.toml", &misspelled).is_err() && !fits(&misspelled), "{misspelled}");
    }
}

#[test]
fn each_field_of_the_types_is_a_key() {
    let file = parse("phial.toml", "test.services.db.image = 'oci:x'").expect("a file");
    let debug = format!("{file:?}");
    let fields = debug.match_indices(": ").filter_map(|(at, _)| debug[..at].rsplit([' ', '{', '(']).next());
    let own = |name: &&str| !name.starts_with('"');
    let fields: BTreeSet<&str> = fields.filter(own).collect();
    let names: BTreeSet<&str> = KEYS.iter().flat_map(SettingKey::parts).filter(|part| *part != NAME).collect();
    assert_eq!(fields, names);
}

#[test]
fn the_settings_of_real_apps_fit_the_schema() {
    let mut count = 0;
    for entry in fs::read_dir(repository().join("testdata/apps")).expect("apps") {
        let Ok(text) = fs::read_to_string(entry.expect("an entry").path().join("phial.toml")) else { continue };
        assert!(fits(&text) && parse("phial.toml", &text).is_ok(), "{text}");
        count += 1;
    }
    assert!(count >= 5, "{count} files");
}

#[test]
fn the_settings_in_the_documents_fit_the_schema() {
    let mut count = 0;
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.language == "toml") {
            if block.text.contains("[[registry]]") {
                continue; // registries.conf
            }
            assert!(fits(&block.text), "{}:\n{}", document.path.display(), block.text);
            parse("phial.toml", &block.text).unwrap_or_else(|error| panic!("{}: {error}", document.path.display()));
            count += 1;
        }
    }
    assert!(count >= 3, "{count} blocks");
}

#[test]
fn parser_and_schema_agree_on_times() {
    for (time, good) in [
        ("5", true),
        ("'90'", true),
        ("'90s'", true),
        ("'10m'", true),
        ("'1h'", true),
        ("'14d'", true),
        ("'2w'", true),
        ("0", false),
        ("''", false),
        ("'m'", false),
        ("'-1s'", false),
        ("'1.5h'", false),
        ("'1y'", false),
    ] {
        let file = format!("test.timeout = {time}");
        let settings = parse("phial.toml", &file).expect("a number or a text").test;
        assert_eq!(TestPlan::new(&settings, &TestFlags::default()).is_ok(), good, "the parser: {file}");
        assert_eq!(fits(&file), good, "the schema: {file}");
    }
}

#[test]
fn parser_and_schema_refuse_the_same_files() {
    for file in [
        "image = 3",
        "colour = 'blue'",
        "image.envs = 'prod'",
        "image.name = 7",
        "image.compression = 'lzma'",
        "image.labels.a = 1",
        "prepare.clock = 'slow'",
        "prepare.strict = 'yes'",
        "prepare.network = 'bridge'",
        "release.requires = 'test'",
        "test.command = 7",
        "test.commands = 'mix test'",
        "test.commands = [{ name = 'lint' }]",
        "test.timeout = true",
        "test.services = ['db']",
        "test.services.db = 'oci:x'",
        "test.services.db.image = 'oci:x'\ntest.services.db.port = 70000",
        "test.services.db.image = 'oci:x'\ntest.services.db.imag = 'oci:x'",
        "test.services.db.image = 'oci:x'\ntest.services.db.tmpfs = '/data'",
    ] {
        assert!(parse("phial.toml", file).is_err(), "the parser takes {file}");
        assert!(!fits(file), "the schema takes {file}");
    }
}
