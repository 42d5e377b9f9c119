//! What commands need that run programs in an image: the image's trees, users, variables and settings, an isolation that works
//! on this machine, and the files of a sandbox.

mod access;
mod error;
mod image_settings;
mod isolation;
mod output_tail;
mod resolved_image;
mod user;
pub mod userns_helper;
mod writable;

use std::collections::BTreeMap;

pub use access::AccessDenied;
pub(crate) use access::access_denied;
pub use error::RuntimeError;
pub(crate) use image_settings::{app_of, layer_made_by, settings_of};
pub use isolation::IsolationChoice;
pub(crate) use isolation::{choose, report as report_isolation};
pub(crate) use output_tail::OutputTail;
pub(crate) use resolved_image::{Origin, ResolvedImage};
pub(crate) use user::{User, user};
pub(crate) use writable::writable_paths;

use crate::image::Image;
use crate::sandbox::Network;

/// `/etc/hosts` in sandboxes.
pub(crate) const HOSTS: &str = "127.0.0.1 localhost phial\n::1 localhost ip6-localhost ip6-loopback\n";

/// The environment variables of an image's config.
pub(crate) fn environment(image: &Image) -> BTreeMap<String, String> {
    let pairs = image.config.config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `/etc/resolv.conf` in a sandbox: that of the host if the sandbox uses the host's network, else empty. `None` if the host
/// has none.
pub(crate) fn resolv_conf(network: Network) -> Option<String> {
    match network {
        Network::Host => std::fs::read_to_string("/etc/resolv.conf").ok(),
        Network::None | Network::Shared(_) => Some(String::new()),
    }
}
