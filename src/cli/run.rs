//! `phial run`.

use std::process::ExitCode;

use clap::Args;

use super::{Common, IsolationArg, NetworkArg, Outcome};
use crate::context::Context;
use crate::run::{self, RunRequest};
use crate::sandbox::{Exit, Network};

/// Run a command in an image, without root
#[derive(Args)]
pub(super) struct RunArgs {
    /// `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    image: String,
    /// The command; without one, the image's own
    #[arg(last = true)]
    command: Vec<String>,
    /// A variable beside the image's: `NAME=value`, or `NAME` for the caller's value; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run as this user in place of the image's: a number, `number:number`, or a name of the image
    #[arg(short, long)]
    user: Option<String>,
    /// RunRequest in this folder in place of the image's
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// How the command is kept apart from the machine
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Whether the command reaches the network
    #[arg(long, value_enum, default_value_t = NetworkArg::Host)]
    network: NetworkArg,
    /// Let the command write to `/tmp` and `/run` only
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(args: &RunArgs, context: &Context<'_>) -> Outcome {
    let start = RunRequest {
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
    Ok(match run::run(&start, context)? {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(signal) => super::exit::of_signal(signal),
    })
}
