//! `phial run`: runs a command in an image, with the same trees and sandbox as the steps of a build.

use std::collections::BTreeMap;

use crate::config::{self, ConfigError};
use crate::context::Context;
use crate::error::Error;
use crate::image::{DEFAULT_PATH, Image};
use crate::rootfs::{self, Isolation};
use crate::runtime::{
    HOSTS, IsolationChoice, ResolvedImage, RuntimeError, choose, environment, report_isolation, resolv_conf, user,
    writable_paths,
};
use crate::sandbox::{self, Exit, Network, OURSELVES, SandboxError, SandboxEvent, Spec, Stdio};
use crate::store::TreeCheck;

/// One call of `phial run`.
#[derive(Debug)]
pub struct RunRequest {
    /// The image's reference.
    pub image: String,
    /// The program and its arguments; if empty, the image's entrypoint and command.
    pub command: Vec<String>,
    /// Environment variables: `NAME=value`, or `NAME` for the caller's value.
    pub env: Vec<String>,
    /// Overrides the image's user.
    pub user: Option<String>,
    /// Overrides the image's working directory.
    pub workdir: Option<String>,
    /// The isolation of the command.
    pub isolation: IsolationChoice,
    /// The network that the command sees.
    pub network: Network,
    /// Whether everything but `/tmp` and `/run` is read-only.
    pub read_only: bool,
}

/// Runs the command with the caller's standard streams and returns how it ended. Its changes to the filesystem are lost.
pub fn run(request: &RunRequest, context: &Context<'_>) -> Result<Exit, Error> {
    let base = ResolvedImage::resolve(context, &config::reference("image", &request.image)?, None)?;
    let argv = argv(request, &base.image)?;
    if let Some(workdir) = request.workdir.as_ref().filter(|workdir| !workdir.starts_with('/')) {
        let reason = "but it must be an absolute path of the image";
        return Err(ConfigError::Value { key: "workdir".into(), value: workdir.clone(), reason }.into());
    }
    let trees = base.trees(context, TreeCheck::Root)?;
    let image = &base.image.config.config;
    let user = user(&trees, request.user.as_deref().unwrap_or(&image.user))?;
    let scratch = context.store.scratch()?;
    let (env, ids) = (env(request, &base.image, user.home, context)?, user.ids);
    let writable = writable_paths(&trees, ids)?;
    let run_in = |isolation: Isolation, is_reported: bool| -> Result<Exit, Error> {
        let rootfs = rootfs::assemble(isolation, &trees, &scratch.dir(&isolation.to_string())?)?;
        let spec = Spec {
            env: env.clone(),
            cwd: request.workdir.clone().unwrap_or_else(|| image.directory()),
            user: ids,
            network: request.network,
            hosts: HOSTS.into(),
            resolv: resolv_conf(request.network),
            stdio: Stdio::Inherit,
            read_only: request.read_only,
            writable: writable.clone(),
            ..Spec::new(rootfs.root, argv.clone())
        };
        Ok(sandbox::run_with_events(OURSELVES.as_ref(), &spec, context.cancel, &mut |event| {
            if matches!(event, SandboxEvent::Ready) && !is_reported {
                report_isolation(isolation, context);
            }
        })?)
    };
    if request.isolation != IsolationChoice::Auto {
        return run_in(choose(request.isolation, context)?, true);
    }
    // Trying the best isolation first with another command would take as long as a short command takes.
    let result = run_in(Isolation::Overlay, false);
    let is_refused = |error: &Error| matches!(error.downcast_ref(), Some(SandboxError::Refused { .. }));
    if !result.as_ref().is_err_and(is_refused) {
        return result;
    }
    match choose(IsolationChoice::Auto, context)? {
        Isolation::Overlay => result, // it works, so the command itself is at fault
        isolation => run_in(isolation, true),
    }
}

/// The program and its arguments: those of the request, else those of the image.
fn argv(request: &RunRequest, image: &Image) -> Result<Vec<String>, RuntimeError> {
    let config = &image.config.config;
    let of_image = || [config.entrypoint.clone(), config.cmd.clone()].concat();
    let argv = if request.command.is_empty() { of_image() } else { request.command.clone() };
    if argv.first().is_none_or(String::is_empty) { Err(RuntimeError::NoCommand) } else { Ok(argv) }
}

/// The environment: defaults, the image's variables, `TERM`, those of the request, in ascending precedence.
fn env(
    request: &RunRequest,
    image: &Image,
    home: String,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOME".to_owned(), home)]);
    env.extend(environment(image));
    env.extend(context.host.var("TERM").map(|term| ("TERM".to_owned(), term.to_owned())));
    env.extend(config::variables(&request.env, context.host)?);
    Ok(env)
}
