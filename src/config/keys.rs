//! Every key of `phial.toml`, in one table.
//!
//! The check for unknown keys, `docs/phial.schema.json` and the tables in `docs/configuration.md` follow from it; `tests/docs`
//! holds that they agree.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct SettingKey {
    /// The tables above it and its name, with dots between. The part [`NAME`] is a name that the user chooses.
    pub path: &'static str,
    /// Which values it takes.
    pub kind: ValueKind,
    /// What holds without it, as Markdown; `None` if it must be there.
    pub default: Option<&'static str>,
    /// What it sets, as Markdown.
    pub doc: &'static str,
}

/// The values of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A TCP port.
    Port,
    /// A list of texts.
    List,
    /// A table of texts by any names.
    Table,
    /// A table of texts by names of environment variables.
    Variables,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A command: a text for `/bin/sh -c`, or a list of words.
    Command,
    /// A list of commands: texts, or tables with `name` and `command`.
    Commands,
    /// Seconds as a number, or a text such as `90s`, `10m`, `1h`.
    Time,
    /// Bytes as a number, or a text such as `500MB`.
    Size,
    /// A whole number.
    Count,
}

/// A part of a path: a name that the user chooses.
pub const NAME: &str = "NAME";

/// All keys, in the order of the documentation.
pub const KEYS: [SettingKey; 43] = [
    key(
        "image.name",
        ValueKind::Text,
        "`oci:./APP.oci`",
        "Where the image goes: a [target](registries.md#names-of-images).",
    ),
    key(
        "image.base",
        ValueKind::Text,
        "`--base` is required",
        "The image to build on: a [reference](registries.md#names-of-images).",
    ),
    key(
        "image.envs",
        ValueKind::List,
        "`[\"staging\", \"prod\"]`; of these, those that the project has a configuration for",
        "The environments (`MIX_ENV`) to compile for, in the order of their layers.",
    ),
    key(
        "image.root",
        ValueKind::Text,
        "[the app where one stands](#an-app-in-a-directory), else the root",
        "The directory of the app in the repository. Only for a `phial.toml` in the root, which says nothing else, and for `--config`.",
    ),
    key(
        "image.include",
        ValueKind::List,
        "none",
        "Files and directories, by their paths from the root of the repository, that [an app in a directory](#an-app-in-a-directory) \
         needs beside its path dependencies.",
    ),
    key("image.entrypoint", ValueKind::List, "the base's", "The `Entrypoint` of the image."),
    key(
        "image.cmd",
        ValueKind::List,
        "the base's; `[\"mix\", \"run\", \"--no-compile\", \"--no-halt\"]` for a Mix project without `image.entrypoint`",
        "The `Cmd` of the image.",
    ),
    key(
        "image.user",
        ValueKind::Text,
        "`65532:65532`, which is not root",
        "The user that the image's command runs as.",
    ),
    key(
        "image.env",
        ValueKind::Table,
        "`MIX_ENV`, `MIX_HOME` and `LANG` for a Mix project",
        "Environment variables of the image, in addition to the base's.",
    ),
    key("image.labels", ValueKind::Table, "none", "Labels of the image."),
    key(
        "image.source",
        ValueKind::Text,
        "the clone's origin as `https://host/path`; none for a repository of this machine",
        "The URL of the repository, for the annotation `org.opencontainers.image.source`.",
    ),
    key("image.compression", ValueKind::OneOf(&["none", "gzip", "zstd"]), "`\"gzip\"`", "How layers are compressed."),
    key(
        "source.submodules",
        ValueKind::Flag,
        "`true`",
        "Fetch the [submodules](#submodules) of the commit; `false` leaves their directories empty.",
    ),
    key(
        "source.lfs",
        ValueKind::Flag,
        "`true`",
        "Take the files of [Git LFS](#files-that-git-writes-otherwise-than-it-stores-them) from the clone; `false` leaves their pointers in the image.",
    ),
    key(
        "prepare.script",
        ValueKind::Text,
        "the built-in script for Mix",
        "An executable of the repository that replaces the [build script](#your-own-build-script).",
    ),
    key(
        "prepare.inputs",
        ValueKind::List,
        "none",
        "More files or directories that the deps step may see. They become part of its [cache key](cache.md#cache-keys).",
    ),
    key(
        "prepare.lockfile",
        ValueKind::Text,
        "`mix.lock`",
        "The lock file of Mix, for a `mix.exs` that has `lockfile:`.",
    ),
    key("prepare.hex", ValueKind::Text, "the newest", "The version of Hex to download if the base image has none."),
    key(
        "prepare.network",
        ValueKind::OneOf(&["host", "none"]),
        "`\"host\"`",
        "The network of the steps: the machine's, or loopback only.",
    ),
    key(
        "prepare.env",
        ValueKind::Variables,
        "none",
        "Environment variables of the steps. They are recorded in the image.",
    ),
    key(
        "prepare.pass",
        ValueKind::List,
        "none",
        "Names of the caller's environment variables that the steps may see, \
         [logins excepted](isolation.md#whose-secrets-a-step-sees). Their values are not recorded.",
    ),
    key(
        "prepare.clock",
        ValueKind::OneOf(&["fixed", "real"]),
        "`\"fixed\"`",
        "The clock while the app is compiled: `\"fixed\"` shows one hour after the time of the sources; `\"real\"` is the \
         machine's, for a step that checks certificates.",
    ),
    key(
        "prepare.strict",
        ValueKind::Flag,
        "`false`",
        "Compile everything twice, for code that [makes up atoms while it compiles](reproducibility.md#limits).",
    ),
    key(
        "prepare.ranges",
        ValueKind::Flag,
        "`false`: one user id",
        "Map a range of [user ids](isolation.md#user-ids) where the machine allows it.",
    ),
    key("prepare.timeout", ValueKind::Time, "`\"6h\"`", "The time limit of each step."),
    key("prepare.max_output", ValueKind::Size, "`\"256MB\"`", "How much each step may write to its standard streams."),
    key(
        "prepare.max_processes",
        ValueKind::Count,
        "`4096`",
        "How many processes and threads each step may have at one time; see [limits](isolation.md#limits).",
    ),
    key(
        "prepare.max_memory",
        ValueKind::Size,
        "`\"32GB\"`",
        "How much memory the processes of each step may have together; see [limits](isolation.md#limits).",
    ),
    key(
        "test.command",
        ValueKind::Command,
        "`script/docker/ci.sh` if the image has it, else `mix test`",
        "The test command. Its name in records is `test`.",
    ),
    key(
        "test.commands",
        ValueKind::Commands,
        "`test.command`",
        "Several test commands, run in this order. A text is its own name.",
    ),
    key(
        "test.entrypoint",
        ValueKind::Flag,
        "`false`",
        "Call the image's entrypoint with the argument `test` instead of a command.",
    ),
    key("test.timeout", ValueKind::Time, "`\"1h\"`", "The time limit of each command."),
    key("test.env", ValueKind::Variables, "none", "Environment variables of the commands. Their names are recorded."),
    key(
        "test.artifacts",
        ValueKind::List,
        "none",
        "Files and directories of `/app` that `--artifacts DIR` copies, in addition to the logs.",
    ),
    SettingKey {
        path: "test.services.NAME.image",
        kind: ValueKind::Text,
        default: None,
        doc: "The service's image: a [reference](registries.md#names-of-images).",
    },
    key("test.services.NAME.command", ValueKind::Command, "the image's", "What the service starts."),
    key("test.services.NAME.env", ValueKind::Variables, "none", "Environment variables, in addition to the image's."),
    key("test.services.NAME.user", ValueKind::Text, "the image's", "The user that it runs as."),
    key(
        "test.services.NAME.ready",
        ValueKind::Command,
        "ready at once",
        "The service is ready when this command, run in its sandbox, exits with 0.",
    ),
    key(
        "test.services.NAME.port",
        ValueKind::Port,
        "ready at once",
        "The service is ready when this TCP port accepts a connection.",
    ),
    key("test.services.NAME.timeout", ValueKind::Time, "`\"60s\"`", "How long it may take until it is ready."),
    key("test.services.NAME.tmpfs", ValueKind::List, "none", "Directories to hold in memory (absolute paths)."),
    key(
        "release.requires",
        ValueKind::List,
        "the names of `test.commands`, or `test`",
        "Names of the test commands that must have passed before a [release](records.md#release-an-image).",
    ),
];

const fn key(path: &'static str, kind: ValueKind, default: &'static str, doc: &'static str) -> SettingKey {
    SettingKey { path, kind, default: Some(default), doc }
}

impl SettingKey {
    /// The names of its path.
    pub fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('.')
    }

    /// Whether `path` names this key or, if it is shorter, a table above it.
    fn begins_with(&self, path: &[&str]) -> bool {
        let mut parts = self.parts();
        path.iter().all(|name| parts.next().is_some_and(|part| part == NAME || part == *name))
    }
}

/// What a path of names in the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyLookup {
    /// A key.
    Key,
    /// A table that has keys.
    Table,
    /// Nothing.
    Unknown,
}

/// Looks a path up in the table of keys.
pub(super) fn lookup(path: &[&str]) -> KeyLookup {
    let mut found = KEYS.iter().filter(|key| key.begins_with(path));
    match found.next() {
        Some(key) if key.parts().count() == path.len() => KeyLookup::Key,
        Some(_) => KeyLookup::Table,
        None => KeyLookup::Unknown,
    }
}

/// The key or the table that was probably meant: spelled otherwise, or in another table.
pub(super) fn nearest(path: &[&str]) -> Option<String> {
    let given = path.join(".");
    let last = path.last().copied().unwrap_or_default();
    let keys = KEYS.iter().map(|key| named(key, path));
    let tables = KEYS.iter().filter_map(|key| Some(key.path.split_once('.')?.0.to_owned()));
    let scored = keys.clone().chain(tables).map(|name| (strsim::damerau_levenshtein(&name, &given), name));
    let close = scored.min().filter(|(distance, _)| *distance <= 2.max(last.len() / 2));
    let elsewhere = || KEYS.iter().find(|key| key.parts().last() == Some(last)).map(|key| named(key, path));
    close.map(|(_, name)| name).or_else(elsewhere)
}

/// The key's path with the user's own names in place of [`NAME`].
fn named(key: &SettingKey, path: &[&str]) -> String {
    let name = |(nth, part): (usize, &'static str)| {
        let own = path.get(nth).copied();
        if part == NAME { own.unwrap_or(part).to_owned() } else { part.to_owned() }
    };
    key.parts().enumerate().map(name).collect::<Vec<_>>().join(".")
}
