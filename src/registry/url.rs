//! URLs of registries: where one is reached, which addresses are trusted with what, and how a URL is shown.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::Url;

use crate::image::shown;

/// Where plain http is allowed, as errors state it.
pub(super) const PLAIN_HTTP_RULE: &str = "plain http is for loopback and hosts named with `--plain-http`";

/// The root of a registry's API, and how far its TLS is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Scheme, host and port; the path is `/`.
    pub(super) url: Url,
    pub(super) tls: Tls,
}

/// What is asked of a registry's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// A certificate that the trusted ones vouch for.
    Verified,
    /// Any certificate, or plain http: the registry is `insecure` in `registries.conf`.
    Unverified,
}

impl Tls {
    /// The setting `insecure` of `registries.conf`.
    pub(super) fn from_insecure(insecure: bool) -> Self {
        if insecure { Self::Unverified } else { Self::Verified }
    }
}

/// A URL for messages: without user information, query and fragment, which may hold secrets.
pub(super) fn display_url(url: &Url) -> String {
    let mut bare = url.clone();
    let _ = (bare.set_username(""), bare.set_password(None)); // URLs without a host have none
    bare.set_query(None);
    bare.set_fragment(None);
    shown(bare.as_str())
}

/// `host[:port]` as a reference writes it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host as an IP address, if it is one; IPv4 addresses in IPv6 (mapped, compatible, of NAT64 and of 6to4) count as IPv4.
pub(super) fn ip_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let IpAddr::V6(v6) = address.to_canonical() else { return Some(address.to_canonical()) };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => IpAddr::V6(v6), // none, and loopback
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            v4(high, low)
        }
        _ => IpAddr::V6(v6),
    })
}

/// `localhost`, 127.0.0.0/8, `::1`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match ip_address(url) {
        Some(address) => address.is_loopback(),
        None => url.host_str() == Some("localhost"),
    }
}

/// Names of loopback besides `localhost` (RFC 6761, 6.3). They lift no rule.
fn is_loopback_name(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default().trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// An address of this machine or its link, where clouds have their metadata services.
pub(super) fn is_link_local(url: &Url) -> bool {
    is_loopback(url)
        || is_loopback_name(url)
        || match ip_address(url) {
            Some(IpAddr::V4(v4)) => v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
            Some(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.segments()[0] == 0xfd00,
            None => false,
        }
}

/// A link-local address, or one of a private network.
pub(super) fn is_private(url: &Url) -> bool {
    is_link_local(url)
        || match ip_address(url) {
            Some(IpAddr::V4(v4)) => v4.is_private(),
            Some(IpAddr::V6(v6)) => v6.is_unique_local(),
            None => false,
        }
}

/// A URL that a registry names holds no login: it would be sent in place of the caller's.
pub(super) fn check_user(url: &Url) -> Result<(), &'static str> {
    let is_bare = url.username().is_empty() && url.password().is_none();
    if is_bare { Ok(()) } else { Err("it holds user information") }
}

/// Whether a redirect from `from` to `to` may be followed; an error names the rule that it breaks.
pub(super) fn check_redirect(from: &Url, to: &Url) -> Result<(), &'static str> {
    match to.scheme() {
        "https" => {}
        "http" if from.scheme() == "https" => return Err("it leaves https"),
        // From plain http to plain http: whether that host may be reached so is checked with the next request.
        "http" if is_loopback(to) || (from.scheme() == "http" && !is_loopback(from)) => {}
        "http" => return Err(PLAIN_HTTP_RULE),
        _ => return Err("its scheme is neither http nor https"),
    }
    // From loopback a redirect may lead to loopback again, but not on to a metadata service.
    let stays_on_loopback = is_loopback(from) && is_loopback(to);
    if from.host() != to.host() && !stays_on_loopback && is_link_local(to) {
        return Err("it leads to an address inside this machine or link");
    }
    check_user(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_known_in_every_form_of_ipv6() {
        for host in [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[::ffff:a9fe:a9fe]",
            "2852039166",
            "0xa9fea9fe",
        ] {
            let url = Url::parse(&format!("https://{host}/latest")).unwrap();
            assert!(is_link_local(&url) && !is_loopback(&url), "{host}");
            for from in
                ["https://registry.example/", "http://127.0.0.1:5000/", "http://localhost:5000/", "http://[::1]:5000/"]
            {
                assert!(check_redirect(&Url::parse(from).unwrap(), &url).is_err(), "{from} -> {host}");
            }
        }
        for (host, is_own) in
            [("[::1]", true), ("[::ffff:127.0.0.1]", true), ("[2001:db8::1]", false), ("[::2]", false)]
        {
            assert_eq!(is_loopback(&Url::parse(&format!("https://{host}/")).unwrap()), is_own, "{host}");
        }
    }

    #[test]
    fn a_redirect_breaks_no_rule_because_it_begins_on_loopback() {
        let check = |from: &str, to: &str| check_redirect(&Url::parse(from).unwrap(), &Url::parse(to).unwrap());
        for (from, to, is_followed) in [
            ("http://127.0.0.1:5000/", "http://127.0.0.1:6000/x", true),
            ("http://127.0.0.1:5000/", "https://cdn.example/x", true),
            ("http://127.0.0.1:5000/", "http://cdn.example/x", false),
            ("http://127.0.0.1:5000/", "https://169.254.169.254/x", false),
            ("http://127.0.0.1:5000/", "https://[fe80::1]/x", false),
            ("http://127.0.0.1:5000/", "https://[fd00:ec2::254]/x", false),
            ("http://127.0.0.1:5000/", "https://0.0.0.0/x", false),
            ("https://registry.example/", "https://localhost./x", false),
            ("https://registry.example/", "https://x.localhost/x", false),
            ("https://registry.example/", "https://registry.example/x", true),
            ("https://registry.example/", "https://me:pw@registry.example/x", false),
            ("https://registry.example/", "https://me@cdn.example/x", false),
            ("http://127.0.0.1:5000/", "http://me:pw@127.0.0.1:5000/x", false),
        ] {
            assert_eq!(check(from, to).is_ok(), is_followed, "{from} -> {to}");
        }
    }
}
