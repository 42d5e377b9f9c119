//! URLs of registries: where one is reached, which addresses are trusted with what, and how a URL is shown.

use std::net::IpAddr;

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

/// The host as an IP address, if it is one; IPv4 addresses mapped to IPv6 count as IPv4.
pub(super) fn ip_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(address.to_canonical())
}

/// `localhost`, 127.0.0.0/8, `::1`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match ip_address(url) {
        Some(address) => address.is_loopback(),
        None => url.host_str() == Some("localhost"),
    }
}

/// An address of this machine or its link, where clouds have their metadata services.
pub(super) fn is_link_local(url: &Url) -> bool {
    is_loopback(url)
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
    if from.host() != to.host() && !is_loopback(from) && is_link_local(to) {
        return Err("it leads to an address inside this machine or link");
    }
    Ok(())
}
