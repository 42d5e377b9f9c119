//! `WWW-Authenticate`: which credentials a registry asks for (RFC 9110, 11.6.1; distribution, `spec/auth/token.md`).
//! Ours, because it decides which token server may have a password; it has a fuzz target.

use std::collections::BTreeMap;

use reqwest::Url;

use super::network::NetworkSettings;
use super::url::{check_user, display_url, is_loopback, is_private};
use crate::image::shown;

/// Longer headers are not read, in bytes.
const MAX_LENGTH: usize = 8 << 10;

/// Which credentials a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server.
        realm: String,
        /// The registry, as the token server knows it.
        service: Option<String>,
        /// The scopes that the token must have.
        scope: Option<String>,
        /// `insufficient_scope`, `invalid_token`.
        error: Option<String>,
    },
}

/// The best challenge in these headers: a token before a password.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.filter(|header| header.len() <= MAX_LENGTH) {
        for (scheme, mut parameters) in schemes(header) {
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameters.remove("realm")
            {
                let mut take = |name| parameters.remove(name).filter(|value: &String| !value.is_empty());
                let (service, scope, error) = (take("service"), take("scope"), take("error"));
                return Some(Challenge::Bearer { realm, service, scope, error });
            }
        }
    }
    basic
}

/// Schemes and their parameters: `Scheme name="value", name=value, Scheme2 ...`. Parsing stops at a syntax error.
fn schemes(header: &str) -> Vec<(&str, BTreeMap<String, String>)> {
    let mut found: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((word, BTreeMap::new()));
            rest = after;
            continue;
        };
        let Some((value, after)) = value_of(value.trim_start()) else { return found };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.entry(word.to_ascii_lowercase()).or_insert(value);
        }
        rest = after;
    }
}

/// A token or quoted string; `None` if the quote is not closed.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// The URL of a token server that may get credentials: https, or in plain http the very server of the registry or one that
/// `--plain-http` names; not a private
/// address, unless it is the registry's own (go-containerregistry, `validateRealmURL`; CVE-2024-3727). An error is the
/// realm as it may be shown and the rule that it breaks.
pub(super) fn checked_realm(
    realm: &str,
    registry: &Url,
    network: &NetworkSettings,
) -> Result<Url, (String, &'static str)> {
    let Ok(url) = Url::parse(realm) else { return Err((shown(realm), "it is not an absolute URL")) };
    check_realm(&url, registry, network).map_err(|why| (display_url(&url), why)).map(|()| url)
}

/// The rule of [`checked_realm`], which holds for redirects too.
pub(super) fn check_realm(url: &Url, registry: &Url, network: &NetworkSettings) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => {}
        // Another port may be another program, of another user of this machine.
        "http" if url.origin() == registry.origin() => {}
        "http" if registry.scheme() == "http" && network.is_named_plain(url) => {}
        "http" => return Err("it is not https"),
        _ => return Err("its scheme is neither http nor https"),
    }
    check_user(url)?;
    let both_loopback = is_loopback(registry) && is_loopback(url);
    if is_private(url) && !both_loopback && url.origin() != registry.origin() {
        return Err("it is a private address and not the registry's own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let (service, scope) = (service.map(Into::into), scope.map(Into::into));
        Challenge::Bearer { realm: realm.into(), service, scope, error: None }
    }

    #[test]
    fn the_first_usable_challenge_is_taken() {
        let plain = r#"Bearer realm="https://a/t",service="r",scope="repository:x:pull,push""#;
        let long = format!("Bearer realm=\"{}\"", "x".repeat(64 << 10));
        for (header, expected) in [
            (plain, Some(bearer("https://a/t", Some("r"), Some("repository:x:pull,push")))),
            (r#"Negotiate, Basic realm="x", Bearer realm="https://a/t""#, Some(bearer("https://a/t", None, None))),
            (
                r#"Digest nonce="a, b", bearer realm=https://a/t , service=r"#,
                Some(bearer("https://a/t", Some("r"), None)),
            ),
            (r#"Bearer realm="https://a/\"t""#, Some(bearer("https://a/\"t", None, None))),
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Bearer realm="https://unclosed"#, None),
            (r#"Bearer service="no realm""#, None),
            ("Negotiate", None),
            ("", None),
            (", ,=", None),
            (&long, None),
        ] {
            assert_eq!(parse([header].into_iter()), expected, "{header:.80}");
        }
    }

    #[test]
    fn a_challenge_is_read_with_all_its_parameters_up_to_its_limit() {
        let error = "Bearer realm=\"https://a/t\" , Service=r,scope=\"\",error=insufficient_scope,realm=second";
        let Some(Challenge::Bearer { realm, service, scope, error }) = parse([error].into_iter()) else {
            panic!("a token is asked for")
        };
        assert_eq!((realm.as_str(), service.as_deref(), scope), ("https://a/t", Some("r"), None));
        assert_eq!(error.as_deref(), Some("insufficient_scope"));
        let padded = |length: usize| format!("Bearer realm=x{}", " ".repeat(length - 14));
        assert_eq!(parse([padded(8 << 10).as_str()].into_iter()), Some(bearer("x", None, None)));
        assert_eq!(parse([padded((8 << 10) + 1).as_str()].into_iter()), None);
        let two = ["Basic realm=a", "Bearer realm=b", "Bearer realm=c"];
        assert_eq!(parse(two.into_iter()), Some(bearer("b", None, None)), "a token before a password");
    }

    #[test]
    fn a_registry_in_plain_http_is_its_own_token_server_at_most() {
        let lan = Url::parse("http://registry.lan:5000/").unwrap();
        let remote = Url::parse("https://registry.example/").unwrap();
        let local = Url::parse("https://127.0.0.1:5000/").unwrap();
        for (realm, registry, rule) in [
            ("http://registry.lan:5000/token", &lan, None),
            ("http://registry.lan:6000/token", &lan, Some("not https")),
            ("http://other.lan/token", &lan, Some("not https")),
            ("https://other.lan/token", &lan, None),
            ("http://127.0.0.1/token", &local, Some("not https")),
            ("https://127.0.0.1:6000/token", &local, None),
            ("https://registry.example/token", &remote, None),
            ("https://:pw@auth.example/", &remote, Some("user information")),
            ("https://user@auth.example/", &remote, Some("user information")),
            ("ftp://auth.example/", &remote, Some("neither http nor https")),
            ("https://192.168.0.1/", &remote, Some("a private address")),
            ("token", &remote, Some("not an absolute URL")),
        ] {
            let broken = checked_realm(realm, registry, &NetworkSettings::default()).err().map(|(_, why)| why);
            assert!(
                broken.is_some() == rule.is_some() && broken.unwrap_or_default().contains(rule.unwrap_or_default()),
                "{realm}: {broken:?}"
            );
        }
    }

    #[test]
    fn credentials_go_only_to_token_servers_that_may_have_them() {
        let remote = Url::parse("https://registry.example/").unwrap();
        let local = Url::parse("http://127.0.0.1:5000/").unwrap();
        let private = Url::parse("https://10.0.0.5:5000/").unwrap();
        for (realm, registry, ok) in [
            ("https://auth.example/token", &remote, true),
            ("http://auth.example/token", &remote, false),
            ("http://169.254.169.254/latest", &remote, false),
            ("https://169.254.169.254/latest", &remote, false),
            ("https://[fd00:ec2::254]/", &remote, false),
            ("https://[::ffff:127.0.0.1]/", &remote, false),
            ("https://10.0.0.5:5000/token", &remote, false),
            ("https://10.0.0.5:5000/token", &private, true),
            ("https://10.0.0.5:5001/token", &private, false),
            ("https://localhost/token", &remote, false),
            ("http://127.0.0.1:5000/token", &local, true),
            ("http://127.0.0.1:6000/token", &local, false),
            ("http://localhost:5000/token", &local, false),
            ("https://127.0.0.1:6000/token", &local, true),
            ("https://[::ffff:169.254.169.254]/", &local, false),
            ("https://[64:ff9b::169.254.169.254]/", &remote, false),
            ("http://auth.example/token", &local, false),
            ("https://user:pw@auth.example/", &remote, false),
            ("file:///etc/passwd", &remote, false),
            ("gopher://x/", &remote, false),
            ("/token", &remote, false),
            ("", &remote, false),
        ] {
            assert_eq!(checked_realm(realm, registry, &NetworkSettings::default()).is_ok(), ok, "{realm}");
        }
    }
}
