//! `NO_PROXY`, read as Go's programs read it (golang.org/x/net, `http/httpproxy`), so that one value serves all tools of this
//! field: names with all below them, `.name` and `*.name` for what is below alone, addresses, ranges of them, each with or
//! without a port, and `*`.

use std::net::IpAddr;

use reqwest::Url;

use super::http::address;

/// Which places are gone to past the proxies.
#[derive(Clone, Debug, Default)]
pub(super) struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug)]
enum Rule {
    All,
    /// The leading bits of an address.
    Range(IpAddr, u32),
    Address(IpAddr, Option<u16>),
    /// A domain that begins with a dot, and whether the name without the dot counts.
    Domain(String, bool, Option<u16>),
}

impl NoProxy {
    pub(super) fn parse(list: &str) -> Self {
        Self(list.split(',').filter_map(|entry| Rule::parse(&entry.trim().to_lowercase())).collect())
    }

    pub(super) fn covers(&self, url: &Url) -> bool {
        self.0.iter().any(|rule| rule.covers(url))
    }
}

impl Rule {
    /// `None` for what nobody can mean.
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse())
        {
            return (bits <= width(address)).then_some(Self::Range(address, bits));
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
            Some(below) => Some(Self::Domain(format!(".{below}"), false, port)),
            None => (!host.is_empty()).then(|| Self::Domain(format!(".{host}"), true, port)),
        }
    }

    fn covers(&self, url: &Url) -> bool {
        let is_port = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match self {
            Self::All => true,
            Self::Range(range, bits) => address(url).is_some_and(|address| {
                let spare = width(address) - bits.min(&width(address));
                width(address) == width(*range)
                    && number(address).checked_shr(spare) == number(*range).checked_shr(spare)
            }),
            Self::Address(own, port) => address(url) == Some(*own) && is_port(port),
            Self::Domain(domain, own, port) => {
                let host = url.host_str().unwrap_or_default();
                (host.ends_with(domain.as_str()) || *own && *host == domain[1..]) && is_port(port)
            }
        }
    }
}

/// Bits of an address.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
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
