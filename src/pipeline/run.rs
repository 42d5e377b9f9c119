//! `phial run`: a command in an image, over the same trees and in the same sandbox as the steps of a build.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::base::Base;
use super::{BuildError, Isolation, World, choose, environment, resolv};
use crate::config;
use crate::rootfs;
use crate::sandbox::{self, Exit, Ids, Network, OURSELVES, Order, Stdio};
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
    let image = &base.image.config.config;
    let own = || [image.entrypoint.clone(), image.cmd.clone()].concat();
    let argv = if start.command.is_empty() { own() } else { start.command.clone() };
    if argv.is_empty() {
        return Err(BuildError::NoCommand);
    }
    let trees = base.trees(world)?;
    let account = account(&trees, start.user.as_deref().unwrap_or(&image.user))?;
    let scratch = world.store.scratch()?;
    let rung = choose(start.isolation, world)?;
    let rootfs = rootfs::stand(rung, &trees, &scratch.dir("ground")?)?;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), account.home),
    ]);
    env.extend(environment(&base.image));
    env.extend(world.host.var("TERM").map(|term| ("TERM".to_owned(), term.to_owned())));
    for pair in &start.env {
        match pair.split_once('=') {
            Some((name, value)) => env.insert(name.into(), value.into()),
            None => world.host.var(pair).and_then(|value| env.insert(pair.clone(), value.into())),
        };
    }
    let order = Order {
        root: rootfs.root,
        argv,
        env,
        cwd: start.workdir.clone().unwrap_or_else(|| image.directory()),
        user: account.ids,
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
