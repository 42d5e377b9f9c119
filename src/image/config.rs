//! The config of an image (`config.md`): how it runs, its platform, and its layers' diff IDs.

use std::collections::BTreeMap;

use phial_layers::DiffId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ImageError, shown};
use super::json::null_is_empty;
use super::platform::Platform;

/// The config blob. Fields of other tools at the top level (`container`, `docker_version`) are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`; absent for the usual variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Execution,
    /// The diff IDs of the layers.
    pub rootfs: RootfsConfig,
    /// One entry for each layer, and for each step without a layer.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How to run the image: defaults that a runtime may override.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `user`, `uid`, `user:group`, ...; empty for root.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The first arguments of the command.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments after the entry point, unless the user passes others.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The working directory; empty for `/`. See [`Execution::directory`].
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free text by reverse domain names.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports such as `4000/tcp`; information only.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `SIGTERM` or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Other fields of the base (`Volumes`, `Healthcheck`, `Shell`), unchanged.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The diff IDs of the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsConfig {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<DiffId>,
}

/// How a layer was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step has no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// The config of an image without layers.
    pub(super) fn scratch(platform: &Platform) -> Self {
        Self {
            created: None,
            author: None,
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: Execution::default(),
            rootfs: RootfsConfig { kind: "layers".into(), diff_ids: Vec::new() },
            history: Vec::new(),
        }
    }

    /// The platform of the image.
    pub fn platform(&self) -> Platform {
        Platform { architecture: self.architecture.clone(), os: self.os.clone(), variant: self.variant.clone() }
    }

    /// Checks that the config is supported and fits a manifest with so many layers.
    pub(super) fn check(&self, layers: usize) -> Result<(), ImageError> {
        let refused = |field, why| Err(ImageError::Config { field, why });
        if self.os != "linux" {
            return refused("os", format!("`{}` is not `linux`", shown(&self.os)));
        }
        if self.architecture.is_empty() {
            return refused("architecture", "it is empty".into());
        }
        if self.rootfs.kind != "layers" {
            return refused("rootfs.type", format!("`{}` is not `layers`", shown(&self.rootfs.kind)));
        }
        if self.rootfs.diff_ids.len() != layers {
            return Err(ImageError::DiffIds { layers, diff_ids: self.rootfs.diff_ids.len() });
        }
        for entry in &self.config.env {
            let why = match entry.split_once('=') {
                None => "it has no `=`",
                Some(("", _)) => "it has no name",
                Some((name, _)) if name.contains(['\0', '\n']) => "its name has a NUL or a line break",
                Some((_, value)) if value.contains('\0') => "its value has a NUL",
                Some(_) => continue, // values of several lines are usual: certificates, messages
            };
            // Only the name: the value may be a secret.
            let name = entry.split('=').next().unwrap_or_default();
            return refused("Env", format!("entry `{}`: {why}", shown(name)));
        }
        Ok(())
    }
}

impl Execution {
    /// The working directory: absolute, without `.` and `..`, clamped to `/`.
    pub fn directory(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for part in self.working_dir.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// Sets a variable, at its position if it is set already.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let is_it = |old: &String| old.split_once('=').is_some_and(|(key, _)| key == name);
        match self.env.iter_mut().find(|old| is_it(old)) {
            Some(old) => *old = entry,
            None => self.env.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_never_leaves_the_root() {
        for (text, expected) in [("", "/"), ("../../..", "/"), ("/app/./x/../y//", "/app/y"), ("app", "/app")] {
            assert_eq!(Execution { working_dir: text.into(), ..Execution::default() }.directory(), expected);
        }
    }
}
