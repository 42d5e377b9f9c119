//! Network settings: certificates, proxies, and hosts that are reached in plain http. They follow from environment variables
//! and flags; no file is read before the first connection.

use std::collections::BTreeSet;
use std::path::PathBuf;

use reqwest::{Proxy, Url};

use super::certs::{CertDirs, Roots};
use super::error::RegistryError;
use super::no_proxy::NoProxy;
use super::registries::Registries;
use super::url::{authority, display_url, is_loopback};
use crate::host::Host;
use crate::secret::Secret;

/// Options of the command line about registries.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// The one file of logins to use (`--authfile`).
    pub authfile: Option<PathBuf>,
    /// A file of certificates to trust besides the system's (`--ca-file`).
    pub ca_file: Option<PathBuf>,
    /// Hosts (`host[:port]`) that are reached in plain http (`--plain-http`).
    pub plain_http: Vec<String>,
}

/// The network settings of a client.
#[derive(Clone, Default)]
pub(super) struct NetworkSettings {
    pub(super) roots: Roots,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) certs: CertDirs,
    pub(super) registries: Registries,
    /// `host[:port]` of registries in plain http.
    plain: BTreeSet<String>,
    https_proxy: Option<ProxySetting>,
    http_proxy: Option<ProxySetting>,
    no_proxy: NoProxy,
}

/// Makes a proxy for one scheme.
type ProxyConstructor = fn(Url) -> reqwest::Result<Proxy>;

/// A proxy, and the variable that names it. Its URL may have a password.
#[derive(Clone)]
struct ProxySetting {
    url: Secret,
    variable: &'static str,
}

impl NetworkSettings {
    pub(super) fn from_host(host: &Host, options: &NetworkOptions) -> Result<Self, RegistryError> {
        let ca_file = options.ca_file.clone().or_else(|| host.var("PHIAL_CA_FILE").map(PathBuf::from));
        let named = host.var("PHIAL_PLAIN_HTTP").unwrap_or_default().split([',', ' ']).map(str::to_owned);
        let proxy = |names: &[&'static str]| {
            let find = |name: &&'static str| Some(ProxySetting { url: Secret::new(host.var(name)?), variable: name });
            names.iter().find_map(find)
        };
        // In a CGI program, `HTTP_PROXY` comes from the `Proxy` header of a request (httpoxy).
        let is_cgi = host.var("REQUEST_METHOD").is_some();
        let http: &[_] = if is_cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let any = || proxy(&["all_proxy", "ALL_PROXY"]);
        let mut network = Self {
            roots: Roots::from_host(host),
            ca_file: ca_file.map(|path| host.cwd.join(path)),
            certs: CertDirs::from_host(host),
            registries: Registries::from_host(host),
            plain: BTreeSet::new(),
            https_proxy: proxy(&["https_proxy", "HTTPS_PROXY"]).or_else(any),
            http_proxy: proxy(http).or_else(any),
            no_proxy: NoProxy::parse(host.var("no_proxy").or_else(|| host.var("NO_PROXY")).unwrap_or_default()),
        };
        for name in options.plain_http.iter().cloned().chain(named).filter(|name| !name.is_empty()) {
            let url = Url::parse(&format!("http://{name}/")).ok();
            let is_host = |url: &Url| url.path() == "/" && url.query().is_none() && url.username().is_empty();
            let Some(url) = url.filter(|url| is_host(url) && !name.contains('/')) else {
                let why = format!("`{}` is not `host` or `host:port`", crate::image::shown(&name));
                return Err(RegistryError::Setting { place: "`--plain-http`".into(), why });
            };
            network.plain.insert(authority(&url));
        }
        Ok(network)
    }

    /// Whether a URL may be reached in plain http: loopback, and hosts that were named for it.
    pub(super) fn may_be_plain(&self, url: &Url) -> bool {
        is_loopback(url) || self.is_named_plain(url)
    }

    /// Whether a URL was named for plain http.
    pub(super) fn is_named_plain(&self, url: &Url) -> bool {
        self.plain.contains(&authority(url))
    }

    /// The root of a registry's API: https, except for loopback and the hosts that were named.
    pub(super) fn base_url(&self, host: &str) -> Result<Url, RegistryError> {
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|error| RegistryError::NotARegistry {
                place: crate::image::shown(host),
                why: error.to_string(),
            })
        };
        let plain = parse("http")?;
        if self.may_be_plain(&plain) { Ok(plain) } else { parse("https") }
    }

    /// Whether a URL is reached without a proxy: loopback, and what `NO_PROXY` names.
    pub(super) fn is_direct(&self, url: &Url) -> bool {
        is_loopback(url) || self.no_proxy.covers(url)
    }

    /// Adds the proxies of the environment.
    pub(super) fn through_proxies(
        &self,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, RegistryError> {
        builder = builder.no_proxy();
        for (setting, make) in
            [(&self.https_proxy, Proxy::https as ProxyConstructor), (&self.http_proxy, Proxy::http as ProxyConstructor)]
        {
            let Some(setting) = setting else { continue };
            let bad = |why: &str| RegistryError::Setting { place: format!("`{}`", setting.variable), why: why.into() };
            builder = builder.proxy(make(setting.parse()?).map_err(|_| bad("it cannot be used as a proxy"))?);
        }
        Ok(builder)
    }

    /// The proxy for a URL, without user information, and the variable that names it.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<(String, &'static str)> {
        let setting = if url.scheme() == "http" { &self.http_proxy } else { &self.https_proxy }.as_ref()?;
        let proxy = setting.parse().ok().filter(|_| !self.is_direct(url))?;
        Some((display_url(&proxy), setting.variable))
    }
}

impl ProxySetting {
    fn parse(&self) -> Result<Url, RegistryError> {
        let text = self.url.expose();
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let bad = |why: &str| RegistryError::Setting { place: format!("`{}`", self.variable), why: why.into() };
        let url = Url::parse(&whole).map_err(|_| bad("it is not the URL of a proxy"))?;
        if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(bad("a proxy must be http or https")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::error::UserError as _;

    fn network(env: &[(&str, &str)], plain: &[&str]) -> Result<NetworkSettings, RegistryError> {
        let env: BTreeMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let host = Host { env, ..Host::read() };
        let plain_http = plain.iter().map(|name| (*name).to_owned()).collect();
        NetworkSettings::from_host(&host, &NetworkOptions { plain_http, ..NetworkOptions::default() })
    }

    #[test]
    fn plain_http_is_for_loopback_and_named_hosts_only() {
        let network = network(&[("PHIAL_PLAIN_HTTP", "named.example,other.example:80")], &["10.0.0.6:5000"]).unwrap();
        for (host, base) in [
            ("registry.example", "https://registry.example/"),
            ("registry.example:5000", "https://registry.example:5000/"),
            ("10.0.0.5:5000", "https://10.0.0.5:5000/"),
            ("localhost.example", "https://localhost.example/"),
            ("docker.io", "https://registry-1.docker.io/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.9.9.9:5000", "http://127.9.9.9:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/"),
            ("10.0.0.6:5000", "http://10.0.0.6:5000/"),
            ("10.0.0.6:5001", "https://10.0.0.6:5001/"),
            ("named.example", "http://named.example/"),
            ("named.example:5000", "https://named.example:5000/"),
            ("deep.named.example", "https://deep.named.example/"),
            ("other.example", "http://other.example/"),
        ] {
            assert_eq!(network.base_url(host).unwrap().as_str(), base);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for name in ["http://a.example", "a.example/team", "user@a.example", "a b", "a.example:port"] {
            assert!(network(&[], &[name]).is_err_and(|error| error.exit_kind().code() == 2), "{name}");
        }
    }

    #[test]
    fn proxies_come_from_the_usual_variables_and_are_shown_without_their_password() {
        for (env, https, http) in [
            (&[][..], None, None),
            (&[("HTTPS_PROXY", "http://u:hunter2@p:1")], Some(("http://p:1/", "HTTPS_PROXY")), None),
            (&[("https_proxy", "p:1"), ("HTTPS_PROXY", "q:1")], Some(("http://p:1/", "https_proxy")), None),
            (&[("ALL_PROXY", "p:1")], Some(("http://p:1/", "ALL_PROXY")), Some(("http://p:1/", "ALL_PROXY"))),
            (&[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")], None, None),
        ] {
            let network = network(env, &[]).unwrap();
            let own = |(url, variable): (&'static str, &'static str)| (url.to_owned(), variable);
            let of = |url: &str| network.proxy_for(&Url::parse(url).unwrap());
            assert_eq!((of("https://r.example/"), of("http://r.example/")), (https.map(own), http.map(own)));
            assert_eq!(of("https://127.0.0.1:5000/"), None);
        }
        for url in ["socks5://p:1", "ftp://p", "http://hunter2:x:y:z"] {
            let error = network(&[("HTTPS_PROXY", url)], &[]).unwrap().through_proxies(reqwest::Client::builder());
            let error = error.unwrap_err();
            assert!(error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
