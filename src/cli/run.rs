//! `phial run`.

use std::process::ExitCode;

use clap::Args;

use super::{Common, ExitResult, IsolationArg, NetworkArg};
use crate::context::Context;
use crate::run::{self, RunRequest};
use crate::sandbox::{Exit, Network};

/// Run a command in an image, without root
#[derive(Args)]
pub(super) struct RunArgs {
    /// Image to run: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    image: String,
    /// Command and arguments [default: the image's own]
    #[arg(last = true)]
    command: Vec<String>,
    /// Set a variable: `NAME=value`, or `NAME` to pass on its current value; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User to run as: a UID, `UID:GID`, or a user name of the image [default: the image's user]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Sandbox isolation
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Network of the command
    #[arg(long, value_enum, default_value_t = NetworkArg::Host)]
    network: NetworkArg,
    /// Make everything read-only but `/tmp` and `/run`
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(args: &RunArgs, context: &Context<'_>) -> ExitResult {
    let request = RunRequest {
        image: args.image.clone(),
        command: args.command.clone(),
        env: args.env.clone(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        isolation: args.isolation.into(),
        network: match args.network {
            NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        },
        read_only: args.read_only,
    };
    Ok(match run::run(&request, context)? {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(signal) => super::exit::of_signal(signal),
    })
}
