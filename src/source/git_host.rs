//! A git server by its name, as a caller gives it: `HOST` or `HOST:PORT`.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// A server, and one port of it or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHost {
    /// In lower case, an IPv6 address in brackets.
    pub(super) host: String,
    /// The only port; `None` for any.
    pub(super) port: Option<u16>,
}

impl FromStr for GitHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        let is_name = |text: &str| {
            !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && is_name(host),
        };
        if !is_host {
            return Err("not the name of a server: `HOST` or `HOST:PORT`");
        }
        let port = port.map(str::parse).transpose().map_err(|_| "the port is not a number")?;
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}
