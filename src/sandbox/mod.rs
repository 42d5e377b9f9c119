//! One command in fresh namespaces (or a chroot), without root, and how it ended.
//!
//! The sandbox is this program, executed afresh with an empty environment and nothing of the caller's memory: stage 1
//! (`outer`) makes the namespaces, its copy in them (`init`, PID 1) mounts the root, gives up what it may and starts the
//! command. So [`entry`] must be the first thing that `main` does. When [`run`] returns, or the caller dies in whatever
//! way, nothing of the sandbox is left.
//!
//! Sandboxes that are given the same [`Loopback`] reach each other on 127.0.0.1 and are apart in all else.
//!
//! The promise: a command cannot read or change anything outside its root, its binds and its network, barring a hole
//! in the kernel. In a chroot it is weaker: real root without most capabilities, among the machine's processes.

mod chroot;
mod error;
mod exec;
mod harden;
mod ids;
mod init;
mod loopback;
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

pub use error::SandboxError;
pub use ids::inside_ids;
pub use loopback::Loopback;
pub use probe::Probe;
pub use run::{Said, run, serve};
pub use spec::{Bind, Exit, Ids, Network, Ready, Root, Spec, Stdio};
pub use stage::entry;

/// This program, as the first argument of [`run`], [`Probe`] and [`inside_ids`]. Tests, which are another program, give
/// the path of a program that calls [`entry`] instead.
pub const OURSELVES: &str = "/proc/self/exe";
