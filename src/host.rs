//! Facts about the process, read once: environment, home, working directory, clock, ids, cores.
//!
//! Only `main` reads them; every other module gets what it needs as an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Facts about this process. `Debug` shows only the names of environment variables: values may be secrets.
#[derive(Clone)]
pub struct Host {
    /// The environment variables that are valid UTF-8.
    pub env: BTreeMap<String, String>,
    /// The working directory; empty if it was removed.
    pub cwd: PathBuf,
    /// `HOME` if it is absolute, else the home directory in the password database, else `/`.
    pub home: PathBuf,
    /// The system clock.
    pub clock: Clock,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Number of threads that can run in parallel.
    pub cores: NonZeroUsize,
}

/// The system clock, read once; later times are counted from there by a monotonic clock, so that they never go back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds since 1970 when the clock was read.
    read_at: i64,
    /// The same moment.
    since: Instant,
}

impl Clock {
    /// Reads the system clock.
    #[expect(clippy::disallowed_methods, reason = "this module reads the clock for all others")]
    pub fn read() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { read_at: i64::try_from(since_1970.as_millis()).unwrap_or(0), since: Instant::now() }
    }

    fn unix_time_millis(&self) -> i64 {
        self.read_at.saturating_add(i64::try_from(self.since.elapsed().as_millis()).unwrap_or(0))
    }
}

/// Lets a write beyond the limit of file sizes (`ulimit -f`) fail, which is reported, in place of ending the process. Commands in
/// sandboxes have the usual behaviour.
pub fn report_large_files() {
    drop(signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default()));
}

impl Host {
    /// Reads the facts. The only place that does.
    #[expect(clippy::disallowed_methods, reason = "this module reads the environment for all others")]
    pub fn read() -> Self {
        let env: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self {
            cwd: std::env::current_dir().unwrap_or_default(),
            home: home(&env),
            clock: Clock::read(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            env,
        }
    }

    /// The current time in seconds since 1970.
    pub fn unix_time(&self) -> i64 {
        self.unix_time_millis() / 1000
    }

    /// The current time in milliseconds since 1970.
    pub fn unix_time_millis(&self) -> i64 {
        self.clock.unix_time_millis()
    }

    /// How long this machine had been up when this process began, and how long it has been up now; `None` without `/proc`.
    pub fn uptimes(&self) -> Option<RangeInclusive<Duration>> {
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let now = Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()?;
        Some(now.saturating_sub(self.clock.since.elapsed())..=now)
    }

    /// Waits until the clock shows another second than it does now, so that what is built again is built at another time.
    pub fn wait_for_next_second(&self) {
        let now = self.unix_time();
        while self.unix_time() <= now {
            let left = 1000 - self.unix_time_millis().rem_euclid(1000);
            std::thread::sleep(Duration::from_millis(left.unsigned_abs()));
        }
    }

    /// The web page of this CI run, from the variables of Buildkite, GitHub Actions, GitLab or Jenkins.
    pub fn run_url(&self) -> Option<String> {
        let buildkite = || match (self.var("BUILDKITE_BUILD_URL")?, self.var("BUILDKITE_JOB_ID")) {
            (build, Some(job)) => Some(format!("{build}#{job}")),
            (build, None) => Some(build.to_owned()),
        };
        let github = || {
            let (server, repository) = (self.var("GITHUB_SERVER_URL")?, self.var("GITHUB_REPOSITORY")?);
            let run = format!("{server}/{repository}/actions/runs/{}", self.var("GITHUB_RUN_ID")?);
            Some(self.var("GITHUB_RUN_ATTEMPT").map_or_else(|| run.clone(), |nth| format!("{run}/attempts/{nth}")))
        };
        let own = |name: &str| self.var(name).map(str::to_owned);
        let url = buildkite().or_else(github).or_else(|| own("CI_JOB_URL")).or_else(|| own("BUILD_URL"))?;
        (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
    }

    /// The branch of this CI run, from the variables of Buildkite, GitHub Actions, GitLab, `CircleCI`, Semaphore or
    /// Jenkins. For a pull request, its source branch.
    pub fn branch(&self) -> Option<&str> {
        const NAMES: [&str; 8] = [
            "BUILDKITE_BRANCH",
            "GITHUB_HEAD_REF",
            "GITHUB_REF_NAME",
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
            "CI_COMMIT_REF_NAME",
            "CIRCLE_BRANCH",
            "SEMAPHORE_GIT_WORKING_BRANCH",
            "BRANCH_NAME",
        ];
        NAMES.iter().find_map(|name| self.var(name))
    }

    /// The directory of the user's configuration files: `XDG_CONFIG_HOME`, else `~/.config` (XDG Base Directory Specification).
    pub fn config_dir(&self) -> PathBuf {
        self.var("XDG_CONFIG_HOME").map_or_else(|| self.home.join(".config"), PathBuf::from)
    }

    /// The value of an environment variable; `None` if it is not set or empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { env, cwd, home, clock, uid, gid, cores } = self;
        f.debug_struct("Host")
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("cwd", cwd)
            .field("home", home)
            .field("clock", clock)
            .field("ids", &(uid, gid))
            .field("cores", cores)
            .finish()
    }
}

fn home(env: &BTreeMap<String, String>) -> PathBuf {
    let named = env.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let user = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    named.or_else(|| Some(user()?.dir)).unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_from_one_process_to_the_next() {
        for _ in 0..20 {
            let earlier = Host::read().unix_time_millis();
            assert!(Host::read().unix_time_millis() >= earlier);
            let one = Host::read();
            std::thread::sleep(std::time::Duration::from_millis(7));
            assert!(Host::read().unix_time_millis() >= one.unix_time_millis());
        }
    }

    #[test]
    fn no_value_of_the_environment_is_shown() {
        let env = BTreeMap::from([("PHIAL_REGISTRY_AUTH".to_owned(), "hunter2".to_owned())]);
        let shown = format!("{:?}", Host { env, ..Host::read() });
        assert!(shown.contains("PHIAL_REGISTRY_AUTH") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn each_engine_says_where_its_run_is() {
        let host = |pairs: &[(&str, &str)]| Host {
            env: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Host::read()
        };
        let github =
            [("GITHUB_SERVER_URL", "https://github.com"), ("GITHUB_REPOSITORY", "a/b"), ("GITHUB_RUN_ID", "7")];
        for (pairs, url) in [
            (&[("BUILDKITE_BUILD_URL", "https://b/1"), ("BUILDKITE_JOB_ID", "j")][..], Some("https://b/1#j")),
            (&[("BUILDKITE_BUILD_URL", "https://b/1")], Some("https://b/1")),
            (&github, Some("https://github.com/a/b/actions/runs/7")),
            (
                &[&github[..], &[("GITHUB_RUN_ATTEMPT", "2")]].concat(),
                Some("https://github.com/a/b/actions/runs/7/attempts/2"),
            ),
            (&[("CI_JOB_URL", "https://gitlab.example/-/jobs/1")], Some("https://gitlab.example/-/jobs/1")),
            (&[("BUILD_URL", "http://jenkins.example/job/1/")], Some("http://jenkins.example/job/1/")),
            (&[("BUILD_URL", "")], None),
            (&[("BUILD_URL", "javascript:alert(1)")], None),
            (&[], None),
        ] {
            assert_eq!(host(pairs).run_url().as_deref(), url);
        }
    }
}
