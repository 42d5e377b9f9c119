//! `phial cache`: list, inspect and prune the local cache, or the deps cache of a registry.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::cli_error::CliError;
use super::format::size;
use super::ui::Ui;
use super::{Common, ExitResult};
use crate::config::units;
use crate::context::Context;
use crate::error::Error;
use crate::host::Host;
use crate::image::{RegistryRef, rfc3339, shown as quoted};
use crate::remote_cache::{self, CacheEntry};
use crate::store::{PruneOptions, PruneReport, Store, StoreItem, StoreItemKind};

/// Bytes of the local cache unless `PHIAL_CACHE_LIMIT` says otherwise.
const DEFAULT_LIMIT: u64 = 20_000_000_000;

/// List, inspect and prune what is cached between builds
#[derive(Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// List what is cached, the least recently used first
    Ls {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
        /// List the deps cache in this repository of a registry instead, the oldest first
        #[arg(long = "in", value_name = "REPOSITORY")]
        place: Option<RegistryRef>,
        #[command(flatten)]
        common: Common,
    },
    /// Show a blob, a tree, or the result of a step with the inputs of its cache key
    Show {
        /// Digest, cache key or tag, or its first characters
        name: String,
        /// Show an entry of the deps cache in this repository of a registry instead
        #[arg(long = "in", value_name = "REPOSITORY")]
        place: Option<RegistryRef>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove what has not been used for the longest time
    Prune {
        /// Size to shrink the cache to, such as `5GB` or `0` [default: `PHIAL_CACHE_LIMIT`, or 20GB]
        #[arg(long, value_name = "SIZE", value_parser = bytes)]
        limit: Option<u64>,
        /// Also remove what has not been used for this time, such as `14d` or `12h`
        #[arg(long, value_name = "TIME", value_parser = duration)]
        unused_for: Option<i64>,
        /// Prune the deps cache in this repository of a registry instead: by age, and by default without a limit
        #[arg(long = "in", value_name = "REPOSITORY")]
        place: Option<RegistryRef>,
        #[command(flatten)]
        common: Common,
    },
}

impl CacheArgs {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            CacheCommand::Ls { common, .. }
            | CacheCommand::Show { common, .. }
            | CacheCommand::Prune { common, .. } => common,
        }
    }
}

pub(super) fn cache(args: &CacheArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let store = context.store;
    let text = match &args.command {
        CacheCommand::Ls { json, place: Some(place), .. } => {
            let entries = remote_cache::entries(place, context)?;
            if *json {
                ui.json(&entries_as_json(&entries))?;
                return Ok(ExitCode::SUCCESS);
            }
            entries_as_text(&entries)
        }
        CacheCommand::Ls { json, .. } => {
            let items = store.items()?;
            if *json {
                ui.json(&items_as_json(&items))?;
                return Ok(ExitCode::SUCCESS);
            }
            items_as_text(&items)
        }
        CacheCommand::Show { name, place: Some(place), .. } => {
            entry_shown(&remote_cache::entries(place, context)?, name)?
        }
        CacheCommand::Show { name, .. } => items_shown(store, name)?,
        CacheCommand::Prune { limit, unused_for, place: Some(place), .. } => {
            let unused_since = unused_for.map(|seconds| context.host.unix_time() - seconds);
            let prune = PruneOptions { unused_since, limit: *limit, damaged: false };
            ui.info(&pruned_text(remote_cache::prune_entries(place, prune, context)?));
            return Ok(ExitCode::SUCCESS);
        }
        CacheCommand::Prune { limit, unused_for, .. } => {
            let limit = limit.map_or_else(|| configured_limit(context.host), |limit| Ok(Some(limit)));
            let limit = limit.map_err(CliError::CacheLimit)?;
            let unused_since = unused_for.map(|seconds| context.host.unix_time() - seconds);
            let pruned = store.prune(PruneOptions { unused_since, limit, damaged: true })?;
            let Some(pruned) = pruned else { return Err(CliError::CacheInUse.into()) };
            ui.info(&pruned_text(pruned));
            return Ok(ExitCode::SUCCESS);
        }
    };
    ui.data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prunes the cache to its limit after a command that may have filled it. A failure of this is a notice.
pub(super) fn prune_to_limit(context: &Context<'_>) {
    let limit = match configured_limit(context.host) {
        Ok(Some(limit)) => limit,
        Ok(None) => return,
        Err(text) => return context.notice(text),
    };
    match context.store.prune_to_limit(limit, context.host.unix_time()) {
        Ok(Some(pruned)) if pruned.removed > 0 => context.notice(pruned_text(pruned)),
        Ok(_) => {} // another process uses the cache, and prunes it afterwards
        Err(error) => context.notice(format!("cannot prune the cache: {error}")),
    }
}

fn pruned_text(pruned: PruneReport) -> String {
    let PruneReport { removed, removed_bytes, remaining_bytes } = pruned;
    let entries = if removed == 1 { "entry" } else { "entries" };
    format!("{removed} {entries} of {} removed from the cache, {} left", size(removed_bytes), size(remaining_bytes))
}

fn items_as_text(items: &[StoreItem]) -> String {
    let line = |item: &StoreItem| {
        format!("{:<8} {:>9}  {}  {}", item.kind.name(), size(item.size), rfc3339(item.last_used), item.name)
    };
    let total = format!("{} in {} entries", size(items.iter().map(|item| item.size).sum()), items.len());
    items.iter().map(line).chain([total]).collect::<Vec<_>>().join("\n")
}

fn entries_as_text(entries: &[CacheEntry]) -> String {
    let line = |entry: &CacheEntry| {
        format!("{:>9}  {}  {}  {}", size(entry.size), rfc3339(entry.made), entry.tag, entry.digest)
    };
    let noun = if entries.len() == 1 { "entry" } else { "entries" };
    let total = format!("{} in {} {noun}", size(entries.iter().map(|entry| entry.size).sum()), entries.len());
    entries.iter().map(line).chain([total]).collect::<Vec<_>>().join("\n")
}

fn entries_as_json(entries: &[CacheEntry]) -> String {
    let entry = |entry: &CacheEntry| {
        let CacheEntry { tag, digest, key, size, made, .. } = entry;
        json!({ "tag": tag, "digest": digest, "key": key, "size": size, "made": rfc3339(*made) })
    };
    json!(entries.iter().map(entry).collect::<Vec<_>>()).to_string()
}

fn items_as_json(items: &[StoreItem]) -> String {
    let item = |item: &StoreItem| json!({ "kind": item.kind.name(), "name": item.name, "size": item.size, "used": rfc3339(item.last_used) });
    json!(items.iter().map(item).collect::<Vec<_>>()).to_string()
}

/// The entries of which a name begins with `name`, with or without the algorithm of a digest. They must all have the same
/// first name; `list` is the command that lists all names.
fn matching<'a, T>(
    entries: &'a [T],
    name: &str,
    names: fn(&T) -> Vec<&str>,
    list: &'static str,
) -> Result<Vec<&'a T>, CliError> {
    let begins = |own: &str| own.starts_with(name) || own.split_once(':').is_some_and(|(_, hex)| hex.starts_with(name));
    let matches = |entry: &&T| !name.is_empty() && names(entry).into_iter().any(begins);
    let found: Vec<&T> = entries.iter().filter(matches).collect();
    let firsts: BTreeSet<&str> = found.iter().filter_map(|entry| names(entry).first().copied()).collect();
    match firsts.len() {
        1 => Ok(found),
        0 => Err(CliError::NotInCache { name: quoted(name), list }),
        names => Err(CliError::AmbiguousName { name: quoted(name), names }),
    }
}

fn items_shown(store: &Store, name: &str) -> Result<String, Error> {
    let items = store.items()?;
    let mut lines = Vec::new();
    for item in matching(&items, name, |item| vec![item.name.as_str()], "`phial cache ls`")? {
        lines.push(format!("{} {}", item.kind.name(), item.name));
        lines.push(format!("  {}, used {}", size(item.size), rfc3339(item.last_used)));
        if let Some((key, result)) = store.find_result(&item.name).filter(|_| item.kind == StoreItemKind::Result) {
            lines.push(format!("  step {}", quoted(&key.step)));
            lines.extend(key.inputs.iter().map(input));
            lines.push(format!("  result {result}"));
        }
    }
    Ok(lines.join("\n"))
}

fn entry_shown(entries: &[CacheEntry], name: &str) -> Result<String, CliError> {
    let mut lines = Vec::new();
    let names: fn(&CacheEntry) -> Vec<&str> = |entry| vec![&entry.tag, entry.digest.as_str(), &entry.key];
    for entry in matching(entries, name, names, "`phial cache ls --in`")? {
        lines.push(format!("entry {}", entry.tag));
        lines.push(format!("  {}, made {}", size(entry.size), rfc3339(entry.made)));
        lines.push(format!("  manifest {}", entry.digest));
        lines.push(format!("  layer {}", entry.layer));
        lines.push(format!("  key {}", quoted(&entry.key)));
        lines.extend(entry.inputs.iter().map(input));
        let untouched: Vec<&str> = entry.untouched.iter().map(String::as_str).collect();
        if !untouched.is_empty() {
            lines.push(format!("  unchanged packages: {}", quoted(&untouched.join(" "))));
        }
    }
    Ok(lines.join("\n"))
}

fn input((name, value): (&String, &String)) -> String {
    format!("  {} = {}", quoted(name), quoted(value))
}

/// `PHIAL_CACHE_LIMIT`; `None` is no limit.
fn configured_limit(host: &Host) -> Result<Option<u64>, String> {
    match host.var("PHIAL_CACHE_LIMIT") {
        None => Ok(Some(DEFAULT_LIMIT)),
        Some("none") => Ok(None),
        Some(text) => bytes(text).map(Some).map_err(|why| format!("invalid `PHIAL_CACHE_LIMIT`: {why}")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    units::bytes(text).ok_or_else(|| format!("`{}` is not a size such as `500MB`, `20GB` or `0`", quoted(text)))
}

fn duration(text: &str) -> Result<i64, String> {
    let seconds = units::seconds(text).and_then(|seconds| i64::try_from(seconds).ok());
    seconds.ok_or_else(|| format!("`{}` is not a time such as `12h` or `14d`", quoted(text)))
}
