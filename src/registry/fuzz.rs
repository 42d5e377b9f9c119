//! Entry points of the fuzz targets into the parsers of this module: a function takes anything, and panics if a property that must
//! hold does not.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

use std::path::Path;

use reqwest::Url;

use super::auth::token_of_response;
use super::auth_file::{AuthFile, AuthFileFormat, normalized};
use super::challenge::{self, Challenge};
use super::error::RegistryError;
use super::http::stated_reason;
use super::network::NetworkSettings;
use super::paging::next_page;
use super::registries::{NamedBy, Registries};
use super::tags::tags_of_page;
use super::url::{is_loopback, is_private};
use crate::error::{ExitKind, UserError as _};
use crate::image::RegistryRef;

fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

fn assert_fit_for_a_terminal(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// `WWW-Authenticate`: what was parsed is written and parsed to the same value, and no password goes to a token server that may
/// not have it.
pub fn challenge(header: &str) {
    let Some(challenge) = challenge::parse([header].into_iter()) else { return };
    let Challenge::Bearer { realm, service, scope, error } = &challenge else { return };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let parameters =
        [("realm", Some(realm)), ("service", service.as_ref()), ("scope", scope.as_ref()), ("error", error.as_ref())];
    let parameters = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", quoted(value?))));
    let written = format!("Bearer {}", parameters.collect::<Vec<_>>().join(","));
    // Escapes may make it longer than what is read.
    if written.len() <= header.len() {
        assert_eq!(challenge::parse([written.as_str()].into_iter()).as_ref(), Some(&challenge));
    }
    match challenge::checked_realm(realm, &url("https://registry.example/"), &NetworkSettings::default()) {
        Ok(server) => {
            assert!(server.scheme() == "https" && !is_private(&server), "{server}");
            assert!(server.username().is_empty() && server.password().is_none(), "{server}");
        }
        Err((shown, _)) => assert_fit_for_a_terminal(&shown),
    }
    if let Ok(server) = challenge::checked_realm(realm, &url("http://127.0.0.1:5000/"), &NetworkSettings::default()) {
        assert!(server.scheme() == "https" || is_loopback(&server), "{server}");
    }
}

/// `Link`: the next page is a URL whatever the header has.
pub fn link(header: &str) {
    let from = url("https://registry.example/v2/a/tags/list");
    if let Some(next) = next_page(header, &from) {
        assert_eq!(from.join(next.as_str()), Ok(next));
    }
}

/// `registries.conf`: every mirror and location for `name` is the name of a repository with the same tag and digest, and a
/// blocked name has none.
pub fn registries_conf(name: &RegistryRef, text: &str) {
    let refused = |error: RegistryError| {
        assert_fit_for_a_terminal(&error.to_string());
        assert!(matches!(error.exit_kind(), ExitKind::Usage | ExitKind::Refused), "{error}");
    };
    let registries = match Registries::of_text(Path::new("registries.conf"), text) {
        Ok(registries) => registries,
        Err(error) => return refused(error),
    };
    let entry = match registries.entry(name) {
        Ok(Some(entry)) => entry,
        Ok(None) => return,
        Err(error) => return refused(error),
    };
    for named_by in [NamedBy::Tag, NamedBy::Digest] {
        match entry.sources(name, named_by) {
            Ok(sources) => {
                assert!(!sources.is_empty(), "the location is always a source");
                for source in sources {
                    assert_eq!((&source.name.tag, &source.name.digest), (&name.tag, &name.digest));
                    assert_eq!(source.name.to_string().parse().ok().as_ref(), Some(&source.name));
                }
            }
            Err(error) => refused(error),
        }
    }
}

/// What registries and token servers send as JSON, apart from manifests: lists of tags, errors, tokens.
pub fn responses(bytes: &[u8]) {
    assert!(tags_of_page(bytes).is_none_or(|tags| tags.iter().all(|tag| !tag.contains(':'))));
    let reason = stated_reason(bytes);
    assert_fit_for_a_terminal(&reason);
    assert!(reason.chars().count() <= 512, "{reason}");
    if let Ok((token, lifetime)) = token_of_response(bytes) {
        assert!(!token.is_empty() && (1..=86_400).contains(&lifetime), "{lifetime}");
    }
}

/// Files of logins: whatever key a login has, it is the host's or of a repository in it.
pub fn auth_file(bytes: &[u8]) {
    for format in [AuthFileFormat::Config, AuthFileFormat::Dockercfg] {
        let file = match AuthFile::parse("a file", bytes, format) {
            Ok(file) => file,
            Err(error) => {
                assert_fit_for_a_terminal(&error.to_string());
                continue;
            }
        };
        assert!(file.helper("r.example").is_none_or(|(key, _)| normalized(key) == "r.example"));
        match file.login("a file", "r.example", "a/b") {
            Ok(None) => {}
            Ok(Some((_, key))) => {
                assert!(["r.example", "r.example/a", "r.example/a/b"].contains(&normalized(&key).as_str()), "{key}");
            }
            Err(error) => assert_fit_for_a_terminal(&error.to_string()),
        }
    }
}
