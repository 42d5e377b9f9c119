//! What every verb needs that runs a program inside an image: the image's trees, an isolation that works on this machine,
//! the image's users and settings, and the files and variables that a sandbox is given.

mod error;
mod image_settings;
mod isolation;
mod output_tail;
mod resolved_image;
mod user;
pub mod userns_helper;

use std::collections::BTreeMap;

pub use error::RuntimeError;
pub(crate) use image_settings::{layer_made_by, settings_of};
pub use isolation::IsolationChoice;
pub(crate) use isolation::{choose, report as report_isolation};
pub(crate) use output_tail::OutputTail;
pub(crate) use resolved_image::{Origin, ResolvedImage};
pub(crate) use user::user;

use crate::image::Image;
use crate::sandbox::Network;

/// `PATH` of a program in an image that sets none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `/etc/hosts` of every sandbox.
pub(crate) const HOSTS: &str = "127.0.0.1 localhost phial\n::1 localhost ip6-localhost ip6-loopback\n";

/// The variables of an image's config.
pub(crate) fn environment(image: &Image) -> BTreeMap<String, String> {
    let pairs = image.config.config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `/etc/resolv.conf` of a sandbox: the host's where the host's network is used, else empty. `None` if the host has none.
pub(crate) fn resolv_conf(network: Network) -> Option<String> {
    match network {
        Network::Host => std::fs::read_to_string("/etc/resolv.conf").ok(),
        Network::None | Network::Shared(_) => Some(String::new()),
    }
}
