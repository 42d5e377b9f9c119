//! The call of `mmdebstrap`, decided before anything runs.
//!
//! Debian's `rebar3` depends on Common Test and through it on a web browser engine; the program itself is one file that
//! needs none of it. So its package is unpacked, not installed, and the libraries it does use are asked for by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use super::error::BaseError;
use super::packages::Debian;
use crate::image::DEFAULT_PATH;

/// What `/usr/bin/rebar3` and the packages it builds use of Erlang.
const REBAR3_USES: [&str; 14] = [
    "erlang-asn1",
    "erlang-base",
    "erlang-crypto",
    "erlang-dev",
    "erlang-dialyzer",
    "erlang-edoc",
    "erlang-eunit",
    "erlang-inets",
    "erlang-parsetools",
    "erlang-public-key",
    "erlang-ssl",
    "erlang-syntax-tools",
    "erlang-tools",
    "erlang-xmerl",
];

/// Nobody reads these in a container.
const EXCLUDED: [&str; 5] =
    ["/usr/share/doc/*", "/usr/share/i18n/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

const HOSTS: &str = r#"printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$1"/etc/hosts"#;

const REBAR3: &str =
    r#"chroot "$1" sh -ec 'cd /tmp; apt-get -q download rebar3; dpkg-deb -x rebar3_*.deb /; rm rebar3_*.deb'"#;

/// Where Mix looks for rebar3 under `MIX_HOME`; root finds it without that variable too.
const REGISTER: &str = r#"chroot "$1" env HOME=/root MIX_HOME=/opt/mix LC_ALL=C.UTF-8 mix local.rebar rebar3 /usr/bin/rebar3 --force >&2; ln -s /opt/mix "$1"/root/.mix"#;

/// Keys that packages make when they are installed, and the database that `PostgreSQL` makes with a random number in it: they
/// would be other ones each time, and the same on every machine that has the image.
const MADE_AT_INSTALLATION: &str = r#"cd "$1"; find etc/ssl/certs -lname ssl-cert-snakeoil.pem -delete; rm -rf etc/ssl/private/ssl-cert-snakeoil.key etc/ssl/certs/ssl-cert-snakeoil.pem etc/ssh/ssh_host_* etc/postgresql/*/main var/lib/postgresql/*/main"#;

/// What tells one machine, mirror or minute from another and is not taken away by mmdebstrap itself. Hands off `/tmp`: its
/// apt configuration is there until the end, and without it the last `apt-get` works on this machine's own lists.
const FORGET: &str = r#"cd "$1"; rm -rf etc/resolv.conf etc/hostname etc/machine-id etc/apt/sources.list etc/apt/sources.list.d/* usr/share/doc/* usr/share/man/* var/cache/ldconfig/* var/cache/debconf/*-old var/lib/dpkg/*-old var/log/*.log var/log/apt; find usr etc opt -name __pycache__ -prune -exec rm -rf {} +"#;

/// What apt has fetched, and its directories as it makes them for root: it gives `partial` to its own user only where that user
/// may reach the directory, which depends on the machine. mmdebstrap would let apt do it.
const APT: &str = r#"cd "$1"; find var/lib/apt/lists var/cache/apt -mindepth 1 -delete; mkdir -m 755 var/cache/apt/archives; for dir in var/lib/apt/lists var/cache/apt/archives; do mkdir -m 700 $dir/partial; install -m 640 /dev/null $dir/lock; done"#;

/// Refuses names that Debian could not have given, before a shell or apt sees them.
pub(super) fn check(order: &Debian) -> Result<(), BaseError> {
    let good = |name: &str, more: &str| {
        name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    if !good(&order.suite, "-") {
        return Err(BaseError::Suite(order.suite.clone()));
    }
    order.packages.iter().find(|p| !good(p, "+-.")).map_or(Ok(()), |p| Err(BaseError::Package(p.clone())))
}

/// The arguments of `mmdebstrap`. Packages are sorted and named once: their order in the order changes nothing.
pub(super) fn arguments(order: &Debian, mirrors: &[String], mode: &str, tar: &Path) -> Vec<OsString> {
    let has = |name: &str| order.packages.iter().any(|p| p == name);
    let mut include: BTreeSet<&str> = order.packages.iter().map(String::as_str).filter(|p| *p != "rebar3").collect();
    let mut hooks = vec![HOSTS];
    if has("rebar3") {
        include.extend(REBAR3_USES);
        hooks.push(REBAR3);
        if has("elixir") {
            hooks.push(REGISTER);
        }
    }
    hooks.extend([MADE_AT_INSTALLATION, APT, FORGET]);

    let mut call: Vec<OsString> = vec![
        format!("--mode={mode}").into(),
        "--variant=minbase".into(),
        "--format=tar".into(),
        "--skip=output/dev,cleanup/apt".into(),
        r#"--aptopt=APT::Install-Recommends "false""#.into(),
    ];
    call.extend(EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}").into()));
    if !include.is_empty() {
        call.push(format!("--include={}", include.into_iter().collect::<Vec<_>>().join(",")).into());
    }
    call.extend(hooks.iter().map(|hook| format!("--customize-hook={hook}").into()));
    call.extend([order.suite.clone().into(), tar.into()]);
    call.extend(mirrors.iter().map(OsString::from));
    call
}

/// The arguments of `tar` that add an empty `/dev`.
pub(super) fn append_dev(tar: &Path, parent: &Path, epoch: i64) -> Vec<OsString> {
    let mut call: Vec<OsString> =
        ["--append", "--format=pax", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
            .map(OsString::from)
            .into();
    call.extend(
        ["--owner=root:0", "--group=root:0", "--numeric-owner", "--mode=755", "--no-recursion"].map(OsString::from),
    );
    call.push(format!("--mtime=@{epoch}").into());
    call.extend(["--file".into(), tar.into(), "--directory".into(), parent.into(), "./dev".into()]);
    call
}

/// The environment of an image made from this root filesystem.
pub(super) fn env(order: &Debian) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("LANG".into(), "C.UTF-8".into()), ("PATH".into(), DEFAULT_PATH.into())]);
    if order.packages.iter().any(|p| p == "rebar3") {
        env.insert("MIX_HOME".into(), "/opt/mix".into());
    }
    env
}
