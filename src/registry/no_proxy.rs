//! `NO_PROXY` by the rules of Go (golang.org/x/net, `http/httpproxy`), which the other tools for images follow: a domain with
//! its subdomains, `.domain` and `*.domain` for subdomains alone, an IP address, each with or without a port, a CIDR range,
//! and `*`. `reqwest` has rules of its own, which differ in ports and in `*.domain`.

use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

use super::url::ip_address;

/// The hosts that are reached without a proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct NoProxy(Vec<NoProxyRule>);

#[derive(Clone, Debug)]
enum NoProxyRule {
    All,
    Range(IpNet),
    Address(IpAddr, Option<u16>),
    Domain {
        /// The domain with a dot before it.
        suffix: String,
        /// Whether the domain itself counts, or its subdomains alone.
        itself: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    pub(super) fn parse(list: &str) -> Self {
        Self(list.split(',').filter_map(|entry| NoProxyRule::parse(&entry.trim().to_lowercase())).collect())
    }

    pub(super) fn covers(&self, url: &Url) -> bool {
        self.0.iter().any(|rule| rule.covers(url))
    }
}

impl NoProxyRule {
    /// The rule of an entry in lower case; `None` for one that makes no sense, which is ignored.
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(range) = entry.parse::<IpNet>() {
            return Some(Self::Range(range));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port.parse().ok()?)),
            _ => (entry, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
            Some(domain) => Some(Self::Domain { suffix: format!(".{domain}"), itself: false, port }),
            None => (!host.is_empty()).then(|| Self::Domain { suffix: format!(".{host}"), itself: true, port }),
        }
    }

    fn covers(&self, url: &Url) -> bool {
        let is_port = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match self {
            Self::All => true,
            Self::Range(range) => ip_address(url).is_some_and(|address| range.contains(&address)),
            Self::Address(address, port) => ip_address(url) == Some(*address) && is_port(port),
            Self::Domain { suffix, itself, port } => {
                let host = url.host_str().unwrap_or_default();
                (host.ends_with(suffix.as_str()) || *itself && *host == suffix[1..]) && is_port(port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_covers_what_go_says_it_covers() {
        for (entry, covered, not) in [
            (
                "a.example",
                "https://a.example/ https://b.a.example/ http://A.example:5000/",
                "https://xa.example/ https://example/",
            ),
            ("A.Example", "https://a.example/", ""),
            (".a.example", "https://b.a.example/ https://c.b.a.example/", "https://a.example/"),
            ("*.a.example", "https://b.a.example/", "https://a.example/"),
            ("a.example:5000", "https://a.example:5000/ http://b.a.example:5000/", "https://a.example/"),
            ("a.example:443", "https://a.example/", "http://a.example/ https://a.example:5000/"),
            ("a.example:http", "", "https://a.example/"),
            ("10.0.0.5", "https://10.0.0.5/ https://10.0.0.5:5000/ https://[::ffff:10.0.0.5]/", "https://10.0.0.50/"),
            ("10.0.0.5:5000", "https://10.0.0.5:5000/", "https://10.0.0.5/"),
            ("10.0.0.0/8", "https://10.9.8.7:5000/", "https://11.0.0.1/ https://a.example/ https://[fd00::1]/"),
            ("0.0.0.0/0", "https://11.0.0.1/", "https://[fd00::1]/"),
            ("10.0.0.0/33", "", "https://10.0.0.0/"),
            ("fd00::1", "https://[fd00::1]:5000/", "https://[fd00::2]/"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", "https://[fd00::1]/"),
            ("fd00::/16", "https://[fd00:1::1]/", "https://[fd01::1]/ https://10.0.0.5/"),
            ("::/0", "https://[fd00::1]/", "https://10.0.0.5/"),
            (" x.example , .b.example:443", "https://x.example/ https://a.b.example/", "https://b.example/"),
            ("*", "https://a.example/ https://10.0.0.5:1/ http://[fd00::1]/", ""),
            (",", "", "https://a.example/"),
            (":5000", "", "https://a.example:5000/"),
        ] {
            let rules = NoProxy::parse(entry);
            let of = |url: &str| rules.covers(&Url::parse(url).unwrap());
            assert!(covered.split(' ').filter(|url| !url.is_empty()).all(of), "{entry} covers {covered}");
            assert!(!not.split(' ').filter(|url| !url.is_empty()).any(of), "{entry} does not cover {not}");
        }
    }
}
