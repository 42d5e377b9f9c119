//! HTTP clients, made when they are first needed: for each scheme one with proxies and one without, and one for each host
//! with certificates of its own or with TLS that is not verified.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client as HttpClient, Url};

use super::certs::certificates;
use super::error::RegistryError;
use super::network::NetworkSettings;
use super::url::{Tls, authority};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct ClientPool {
    network: NetworkSettings,
    /// By what they are for: a host, or all hosts that need nothing special.
    clients: Mutex<BTreeMap<String, HttpClient>>,
}

impl ClientPool {
    pub(super) fn new(network: NetworkSettings) -> Self {
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { network, clients: Mutex::default() }
    }

    pub(super) fn network(&self) -> &NetworkSettings {
        &self.network
    }

    /// The client for a URL; clones of a client share its connections.
    pub(super) fn client_for(&self, url: &Url, tls: Tls) -> Result<HttpClient, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = if tls == Tls::Unverified { "unverified " } else { "" };
        let name = format!("{prefix}{}://{}", url.scheme(), authority(url));
        if let Some(client) = clients.get(&name) {
            return Ok(client.clone());
        }
        let is_plain = url.scheme() == "http";
        let host_certs = if is_plain { None } else { self.network.certs.of(&authority(url))? };
        let is_direct = self.network.is_direct(url);
        // The client of all hosts without certificates of their own.
        let shared = format!("{}://{}", url.scheme(), if is_direct { "direct/" } else { "*/" });
        let is_shared = host_certs.is_none() && tls == Tls::Verified;
        if is_shared && let Some(client) = clients.get(&shared).cloned() {
            clients.insert(name, client.clone());
            return Ok(client);
        }
        let mut builder = builder();
        builder = if is_direct { builder.no_proxy() } else { self.network.through_proxies(builder)? };
        if is_plain {
            builder = builder.tls_certs_only([]);
        } else {
            builder = builder.https_only(true).tls_danger_accept_invalid_certs(tls == Tls::Unverified);
            if let Some(roots) = self.network.roots.read()? {
                builder = builder.tls_certs_only(roots);
            }
            if let Some(path) = &self.network.ca_file {
                builder = builder.tls_certs_merge(certificates(path)?);
            }
        }
        if let Some(certs) = host_certs {
            builder = builder.tls_certs_merge(certs.trusted);
            if let Some(identity) = certs.identity {
                builder = builder.identity(identity);
            }
        }
        let client = builder.build().map_err(|source| RegistryError::Tls { source })?;
        if is_shared {
            clients.insert(shared, client.clone());
        }
        clients.insert(name, client.clone());
        Ok(client)
    }
}

fn builder() -> reqwest::ClientBuilder {
    HttpClient::builder()
        .user_agent(concat!("phial/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
}
