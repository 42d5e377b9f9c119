//! Runs one command in new namespaces (or a chroot), without root.
//!
//! The sandbox is this program, executed again with an empty environment and without the caller's memory: stage 1
//! (`stage1`) creates the namespaces; its copy in them (`init`, PID 1) mounts the root, drops privileges and starts the
//! command. So [`entry`] must be the first thing that `main` does. When [`run`] returns, or the caller dies in any way,
//! no process and no mount of the sandbox is left.
//!
//! Sandboxes with the same [`Loopback`] reach each other on 127.0.0.1 and share nothing else.
//!
//! Guarantee: a command cannot read or change anything outside its root, its binds and its network, unless the kernel
//! has a vulnerability. A chroot is weaker: real root without most capabilities, and, where root may make no namespaces,
//! among the machine's processes.

mod chroot;
mod chroot_streams;
mod entry;
mod error;
mod exec;
mod harden;
mod id_map;
mod init;
mod loopback;
mod memory;
mod mounts;
mod net;
mod spec;
mod stage1;
mod mount_target;
mod plan;
mod probe;
mod run;
mod stage;
mod protocol;
mod userns;

pub use entry::entry;
pub use error::SandboxError;
pub use loopback::Loopback;
pub use probe::Probe;
pub use run::{SandboxEvent, run, run_with_events};
pub use spec::{Bind, Exit, Ids, Network, Ready, Root, Spec, Stdio, UsageLimits};
pub use userns::run_in_user_namespace;

/// This program, for the parameter `exe` of [`run`], [`Probe`] and [`run_in_user_namespace`]. Tests, which are another
/// program, pass the path of a program that calls [`entry`].
pub const OURSELVES: &str = "/proc/self/exe";
