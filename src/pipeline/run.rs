//! `phial run`: a command in an image, over the same trees and in the same sandbox as the steps of a build.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::base::Base;
use super::{BuildError, Isolation, World, choose, environment, resolv};
use crate::config;
use crate::image::Image;
use crate::rootfs::{self, Rung};
use crate::sandbox::{self, Exit, Ids, Network, OURSELVES, Order, SandboxError, Stdio};
use crate::store::Tree;

/// One call of `phial run`.
#[derive(Debug)]
pub struct Start {
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
    /// The rung.
    pub isolation: Isolation,
    /// What the command reaches.
    pub network: Network,
    /// Whether only `/tmp` and `/run` can be written.
    pub read_only: bool,
}

/// Runs it with the caller's own streams. What it writes is gone afterwards.
pub fn run(start: &Start, world: &World<'_>) -> Result<Exit, BuildError> {
    let base = Base::resolve(world, &config::reference("image", &start.image)?, None)?;
    let argv = argv(start, &base.image)?;
    let trees = base.trees(world)?;
    let image = &base.image.config.config;
    let account = account(&trees, start.user.as_deref().unwrap_or(&image.user))?;
    let scratch = world.store.scratch()?;
    let (env, user) = (env(start, &base.image, account.home, world), account.ids);
    let on = |rung: Rung| -> Result<Exit, BuildError> {
        let order = Order {
            root: rootfs::stand(rung, &trees, &scratch.dir(&rung.to_string())?)?.root,
            argv: argv.clone(),
            env: env.clone(),
            cwd: start.workdir.clone().unwrap_or_else(|| image.directory()),
            user,
            network: start.network,
            ids: Ids::Single,
            binds: vec![],
            tmpfs: vec![],
            ready: None,
            hosts: super::HOSTS.into(),
            resolv: resolv(start.network),
            stdio: Stdio::Inherit,
            read_only: start.read_only,
        };
        Ok(sandbox::run(OURSELVES.as_ref(), &order, world.cancel, &mut |_| {})?)
    };
    if start.isolation != Isolation::Auto {
        return on(choose(start.isolation, world)?);
    }
    // The best rung is tried by the command itself: finding out beforehand takes as long as starting a small one.
    world.stands_on(Rung::Overlay);
    match on(Rung::Overlay) {
        Err(BuildError::Sandbox(refused @ SandboxError::Refused { .. })) => {
            match choose(Isolation::Auto, world)? {
                Rung::Overlay => Err(refused.into()), // it works, so that was no fault of its
                rung => on(rung),
            }
        }
        ended => ended,
    }
}

/// What is to run: what was asked for, else what the image has for it.
fn argv(start: &Start, image: &Image) -> Result<Vec<String>, BuildError> {
    let config = &image.config.config;
    let own = || [config.entrypoint.clone(), config.cmd.clone()].concat();
    let argv = if start.command.is_empty() { own() } else { start.command.clone() };
    if argv.is_empty() { Err(BuildError::NoCommand) } else { Ok(argv) }
}

fn env(start: &Start, image: &Image, home: String, world: &World<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), home),
    ]);
    env.extend(environment(image));
    env.extend(world.host.var("TERM").map(|term| ("TERM".to_owned(), term.to_owned())));
    for pair in &start.env {
        match pair.split_once('=') {
            Some((name, value)) => env.insert(name.into(), value.into()),
            None => world.host.var(pair).and_then(|value| env.insert(pair.clone(), value.into())),
        };
    }
    env
}

/// A user of an image.
pub(crate) struct Account {
    /// User and group.
    pub(crate) ids: (u32, u32),
    /// The home directory.
    pub(crate) home: String,
}

/// What the config's `User` means: numbers, or names of the image's `/etc/passwd` and `/etc/group` (image-spec, config.md).
pub(crate) fn account(trees: &[Tree], user: &str) -> Result<Account, BuildError> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let passwd = read(trees, "etc/passwd");
    let by_number: Option<u32> = name.parse().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.len() >= 6 && (line[0] == name || by_number.is_some_and(|uid| line[2].parse() == Ok(uid))));
    let of_line = |at: usize| line.as_ref().and_then(|line| line[at].parse().ok());
    let uid = by_number.or_else(|| of_line(2)).ok_or_else(|| BuildError::NoUser(user.into()))?;
    let gid = match group {
        Some(group) => number_of(trees, group).ok_or_else(|| BuildError::NoUser(user.into()))?,
        None => of_line(3).unwrap_or(0),
    };
    let home = line.as_ref().map_or("/", |line| line[5]).to_owned();
    Ok(Account { ids: (uid, gid), home })
}

fn number_of(trees: &[Tree], group: &str) -> Option<u32> {
    let groups = read(trees, "etc/group");
    let named = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == group);
    group.parse().ok().or_else(|| named.and_then(|line| line.get(2)?.parse().ok()))
}

/// A small regular file of the image, or nothing.
fn read(trees: &[Tree], path: &str) -> String {
    let regular = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20);
    let found = trees.iter().map(|tree| tree.root.join(path)).find(|path| regular(path));
    found.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}
