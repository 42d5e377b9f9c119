//! HTTP clients, each made when it is first needed: for plain http and for TLS one with proxies and one without, and one for
//! each host that has certificates of its own or needs none.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client as Http, Url};

use super::certs::certificates;
use super::error::RegistryError;
use super::network::{Network, authority};

const CONNECT: Duration = Duration::from_secs(30);

pub(super) struct Clients {
    network: Network,
    made: Mutex<BTreeMap<String, Http>>,
}

impl Clients {
    pub(super) fn new(network: Network) -> Self {
        // Fails only if a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { network, made: Mutex::default() }
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// The client for a place; clones of a client share its connections. `is_lax` is whether any certificate will do.
    pub(super) fn of(&self, url: &Url, is_lax: bool) -> Result<Http, RegistryError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}{}://{}", if is_lax { "lax " } else { "" }, url.scheme(), authority(url));
        if let Some(client) = made.get(&name) {
            return Ok(client.clone());
        }
        let is_plain = url.scheme() == "http";
        let own = if is_plain { None } else { self.network.certs.of(&authority(url))? };
        let is_direct = self.network.is_direct(url);
        // What hosts without certificates of their own share.
        let common = format!("{}://{}", url.scheme(), if is_direct { "direct/" } else { "*/" });
        let is_common = own.is_none() && !is_lax;
        if is_common && let Some(client) = made.get(&common).cloned() {
            made.insert(name, client.clone());
            return Ok(client);
        }
        let mut builder = builder();
        builder = if is_direct { builder.no_proxy() } else { self.network.through_proxies(builder)? };
        if is_plain {
            builder = builder.tls_certs_only([]);
        } else {
            builder = builder.https_only(true).tls_danger_accept_invalid_certs(is_lax);
            if let Some(roots) = self.network.roots.read()? {
                builder = builder.tls_certs_only(roots);
            }
            if let Some(path) = &self.network.ca_file {
                builder = builder.tls_certs_merge(certificates(path)?);
            }
        }
        if let Some(own) = own {
            builder = builder.tls_certs_merge(own.trusted);
            if let Some(identity) = own.own {
                builder = builder.identity(identity);
            }
        }
        let client = builder.build().map_err(|source| RegistryError::Tls { source })?;
        if is_common {
            made.insert(common, client.clone());
        }
        made.insert(name, client.clone());
        Ok(client)
    }
}

fn builder() -> reqwest::ClientBuilder {
    Http::builder()
        .user_agent(concat!("phial/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
}
