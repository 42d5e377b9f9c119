//! Images on their way in and out: layouts, archives and registries, with skopeo and umoci as independent readers.

#![expect(clippy::unwrap_used, reason = "a test that panics has reported enough")]

mod enterprise_proxy;
mod docker_registry;
mod nginx_front;
pub(crate) mod sample_images;
mod interrupted_push;
mod large_layers;
mod layout;
mod fault_matrix;
mod mirrors;
mod resume;
mod vendor_profiles;
mod push;
mod scripted_registry;
mod faults;
mod tls;
mod tokens;

pub(crate) use crate::scripted;
