//! The process's facts, read once: environment, home, cwd, clock, ids, cores.
//!
//! `main` reads them; every other room gets what it needs as an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The facts of this process. Its `Debug` shows the names of the environment alone: values may be secrets.
#[derive(Clone)]
pub struct Host {
    /// The environment, as far as it is UTF-8.
    pub env: BTreeMap<String, String>,
    /// The working directory; empty if it is gone.
    pub cwd: PathBuf,
    /// `HOME` if it is absolute, else the user's folder by the password database, else `/`.
    pub home: PathBuf,
    /// Seconds since 1970 when the process began; [`Host::clock`] goes on.
    pub now: i64,
    /// How many milliseconds of the next second had passed.
    pub millis: u16,
    /// The same moment on a clock that nobody sets.
    pub began: Instant,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// How many threads may run at once.
    pub cores: NonZeroUsize,
}

impl Host {
    /// Reads the facts. The only place that does.
    #[expect(clippy::disallowed_methods, reason = "this is the room where facts enter")]
    pub fn read() -> Self {
        let env: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            cwd: std::env::current_dir().unwrap_or_default(),
            home: home(&env),
            now: i64::try_from(since.as_secs()).unwrap_or(0),
            millis: u16::try_from(since.subsec_millis()).unwrap_or(0),
            began: Instant::now(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            env,
        }
    }

    /// Seconds since 1970 at this moment.
    pub fn clock(&self) -> i64 {
        self.clock_millis() / 1000
    }

    /// Milliseconds since 1970 at this moment.
    pub fn clock_millis(&self) -> i64 {
        let began = self.now.saturating_mul(1000).saturating_add(i64::from(self.millis));
        began.saturating_add(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(0))
    }

    /// Where this run can be looked at, as the CI engine says: Buildkite, GitHub Actions, GitLab, Jenkins.
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

    /// The branch that is built, as the CI engine says: Buildkite, GitHub Actions, GitLab, `CircleCI`, Semaphore, Jenkins. Of a pull
    /// request it is the one that would be merged.
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

    /// An environment variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { env, cwd, home, now, millis, began, uid, gid, cores } = self;
        f.debug_struct("Host")
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("cwd", cwd)
            .field("home", home)
            .field("now", &(now, millis, began))
            .field("ids", &(uid, gid))
            .field("cores", cores)
            .finish()
    }
}

fn home(env: &BTreeMap<String, String>) -> PathBuf {
    let told = env.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let user = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    told.or_else(|| Some(user()?.dir)).unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_of_processes_that_follow_each_other_do_too() {
        for _ in 0..20 {
            let ended = Host::read().clock_millis();
            assert!(Host::read().clock_millis() >= ended);
            let one = Host::read();
            std::thread::sleep(std::time::Duration::from_millis(7));
            assert!(Host::read().clock_millis() >= one.clock_millis());
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
