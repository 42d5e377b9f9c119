//! Checks of single values that settings and flags share. Each names the setting in its error.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::error::ConfigError;
use crate::host::Host;
use crate::image::{Reference, Target, shown};

/// Parses the name of an image that the setting or flag `key` holds.
pub fn reference(key: &str, text: &str) -> Result<Reference, ConfigError> {
    text.parse().map_err(|source| ConfigError::Reference { key: key.into(), source })
}

/// Parses targets: layouts, archives and repositories that an image is written to.
pub fn targets(texts: &[String]) -> Result<Vec<Target>, ConfigError> {
    let parse = |text: &String| text.parse().map_err(|source| ConfigError::Reference { key: "to".into(), source });
    texts.iter().map(parse).collect()
}

/// A Mix environment: a lower-case word that is not among those `before` it.
pub(super) fn check_env(env: &str, before: &[String]) -> Result<(), ConfigError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !env.starts_with(|c: char| c.is_ascii_lowercase()) || !env.chars().all(is_allowed) {
        return Err(invalid("env", env, "but an environment is a lower-case word such as `prod`"));
    }
    if before.iter().any(|other| other == env) {
        return Err(invalid("env", env, "and it is named twice"));
    }
    Ok(())
}

/// The directory of an app in a repository: a relative path, or `.` for the root. `key` is the setting or flag.
pub fn check_root(key: &str, path: &str) -> Result<(), ConfigError> {
    let is_root = path.is_empty() || path == "." || path == "./";
    if is_root { Ok(()) } else { check_path(key, path.strip_prefix("./").unwrap_or(path)) }
}

/// A relative path that stays inside the repository.
pub(super) fn check_path(key: &str, path: &str) -> Result<(), ConfigError> {
    let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !is_plain || path.contains('\0') {
        return Err(invalid(key, path, "but it must be a path inside the repository, without `..`"));
    }
    Ok(())
}

/// The rule that [`ConfigError::Value`] gives for a name that no variable has.
const NAME_OF_VARIABLE: &str = "but a variable's name is not empty and has no `=` and no control character";

/// Environment variables: names that an environment can have, and values without a NUL.
pub(super) fn check_variables(key: &str, variables: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in variables {
        check_name(key, name)?;
        check_text(&format!("{key}.{name}"), value)?;
    }
    Ok(())
}

/// A name that an environment can have.
pub(super) fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.contains('=') || name.contains(char::is_control) {
        return Err(invalid(key, &shown(name), NAME_OF_VARIABLE));
    }
    Ok(())
}

/// A text that a process can be given.
pub(super) fn check_text(key: &str, text: &str) -> Result<(), ConfigError> {
    // Not the value itself: it may be a secret.
    if text.contains('\0') { Err(invalid(key, "a text with a NUL", "which no process can be given")) } else { Ok(()) }
}

/// The variables of the flags `--env`: each `NAME=VALUE`, or `NAME` for the caller's value, which may have none.
pub fn variables(pairs: &[String], host: &Host) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut variables = BTreeMap::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').map_or((&**pair, None), |(name, value)| (name, Some(value)));
        check_name("env", name)?;
        variables.extend(value.or_else(|| host.var(name)).map(|value| (name.to_owned(), value.to_owned())));
    }
    Ok(variables)
}

/// The name of an environment variable.
pub(super) fn check_variable(key: &str, name: &str) -> Result<(), ConfigError> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(is_first) || !name.chars().all(|c| is_first(c) || c.is_ascii_digit()) {
        return Err(invalid(key, &shown(name), "but a variable's name has letters, digits and `_` only"));
    }
    Ok(())
}

/// A host name of one label (RFC 1123, section 2.1).
pub(super) fn check_host(key: &str, name: &str) -> Result<(), ConfigError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_bounded = (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-');
    if !is_bounded || !name.chars().all(is_allowed) {
        return Err(invalid(key, name, "but a service's name is a host name: lower-case letters, digits, `-`"));
    }
    Ok(())
}

/// An exact version: three numbers, and perhaps more after `-` or `+`.
pub(super) fn check_version(key: &str, version: &str) -> Result<(), ConfigError> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let (numbers, more) = version.split_at(end);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_exact = numbers.split('.').count() == 3 && numbers.split('.').all(is_number);
    if !is_exact || !more.chars().all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c)) {
        return Err(invalid(key, version, "but it is one version, such as `2.0.6`"));
    }
    Ok(())
}

/// The error of a value that is not allowed.
pub(super) fn invalid(key: &str, value: &str, reason: &'static str) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.into(), reason }
}
