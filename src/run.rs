//! `phial run`: a command in an image, over the same trees and in the same sandbox as the steps of a build.

use std::collections::BTreeMap;

use crate::config;
use crate::context::Context;
use crate::error::Error;
use crate::image::Image;
use crate::rootfs::{self, Isolation};
use crate::runtime::{
    DEFAULT_PATH, HOSTS, IsolationChoice, ResolvedImage, RuntimeError, choose, environment, report_isolation,
    resolv_conf, user,
};
use crate::sandbox::{self, Exit, Ids, Network, OURSELVES, SandboxError, Spec, Stdio};

/// One call of `phial run`.
#[derive(Debug)]
pub struct RunRequest {
    /// The image.
    pub image: String,
    /// The command; the image's own if it is empty.
    pub command: Vec<String>,
    /// `NAME=value` or `NAME`.
    pub env: Vec<String>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// In place of the image's working directory.
    pub workdir: Option<String>,
    /// How the command is isolated.
    pub isolation: IsolationChoice,
    /// What the command reaches.
    pub network: Network,
    /// Whether only `/tmp` and `/run` can be written.
    pub read_only: bool,
}

/// Runs it with the caller's own streams. What it writes is gone afterwards.
pub fn run(request: &RunRequest, context: &Context<'_>) -> Result<Exit, Error> {
    let base = ResolvedImage::resolve(context, &config::reference("image", &request.image)?, None)?;
    let argv = argv(request, &base.image)?;
    let trees = base.trees(context)?;
    let image = &base.image.config.config;
    let user = user(&trees, request.user.as_deref().unwrap_or(&image.user))?;
    let scratch = context.store.scratch()?;
    let (env, ids) = (env(request, &base.image, user.home, context), user.ids);
    let on = |isolation: Isolation| -> Result<Exit, Error> {
        let spec = Spec {
            root: rootfs::assemble(isolation, &trees, &scratch.dir(&isolation.to_string())?)?.root,
            argv: argv.clone(),
            env: env.clone(),
            cwd: request.workdir.clone().unwrap_or_else(|| image.directory()),
            user: ids,
            network: request.network,
            ids: Ids::Single,
            binds: vec![],
            tmpfs: vec![],
            ready: None,
            hosts: HOSTS.into(),
            resolv: resolv_conf(request.network),
            stdio: Stdio::Inherit,
            read_only: request.read_only,
        };
        Ok(sandbox::run(OURSELVES.as_ref(), &spec, context.cancel, &mut |_| {})?)
    };
    if request.isolation != IsolationChoice::Auto {
        return on(choose(request.isolation, context)?);
    }
    // The best isolation is tried by the command itself: finding out beforehand takes as long as requesting a small one.
    report_isolation(Isolation::Overlay, context);
    let ended = on(Isolation::Overlay);
    let is_refused = |error: &Error| matches!(error.downcast_ref(), Some(SandboxError::Refused { .. }));
    if !ended.as_ref().is_err_and(is_refused) {
        return ended;
    }
    match choose(IsolationChoice::Auto, context)? {
        Isolation::Overlay => ended, // it works, so the command itself is at fault
        isolation => on(isolation),
    }
}

/// What is to run: what was asked for, else what the image has for it.
fn argv(request: &RunRequest, image: &Image) -> Result<Vec<String>, RuntimeError> {
    let config = &image.config.config;
    let own = || [config.entrypoint.clone(), config.cmd.clone()].concat();
    let argv = if request.command.is_empty() { own() } else { request.command.clone() };
    if argv.is_empty() { Err(RuntimeError::NoCommand) } else { Ok(argv) }
}

fn env(request: &RunRequest, image: &Image, home: String, context: &Context<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOME".to_owned(), home)]);
    env.extend(environment(image));
    env.extend(context.host.var("TERM").map(|term| ("TERM".to_owned(), term.to_owned())));
    for pair in &request.env {
        match pair.split_once('=') {
            Some((name, value)) => env.insert(name.into(), value.into()),
            None => context.host.var(pair).and_then(|value| env.insert(pair.clone(), value.into())),
        };
    }
    env
}
