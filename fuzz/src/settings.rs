//! Target for the settings that come with a commit or an image: `phial.toml` and `phial.lock`.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use phial::config::{
    self, BuildFlags, BuildPlan, ConfigError, LockFile, SettingsOrigin, TestFlags, TestPlan, secret_of,
};
use phial::error::{ExitKind, UserError as _};

/// Settings with every table, values at their limits, mistakes, and a lock.
pub(crate) fn files() -> Vec<Vec<u8>> {
    let files = [
        "[image]\nbase = 'r.example/elixir:1'\nname = 'oci:out:v1'\nenvs = ['prod']\ncompression = 'zstd'\nenv = { A = 'b' }\n\
         [prepare]\nscript = 'script/prepare'\ninputs = ['a', 'b/']\nnetwork = 'none'\nclock = 'real'\nstrict = true\npass = ['A']\n",
        "[test]\ncommands = ['mix test', { name = 'lint', command = ['credo'] }]\ntimeout = '10m'\nartifacts = ['cover']\n\
         [test.services.db]\nimage = 'postgres:16'\nready = 'pg_isready'\nport = 5432\ntmpfs = ['/data']\ntimeout = 5\n",
        "[release]\nrequires = ['test']\n[test]\nentrypoint = true\n",
        "\u{feff}[image]\nbase = 'docker.io/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n",
        "[prepare]\npass = ['GIT_TOKEN']\nenv = { 'A=B' = '' }\n",
        "[image]\nnmae = 'x'\n[tset]\n",
        "[base]\nname = \"r.example/e:1\"\ndigest = \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
    ];
    files.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A name is read as it is printed.
fn stable<T: FromStr + Display + PartialEq + Debug>(name: &T) {
    assert_eq!(name.to_string().parse().ok().as_ref(), Some(name));
}

fn refused(error: &ConfigError) {
    assert_eq!(error.exit_kind(), ExitKind::Usage, "{error}");
}

/// Untrusted settings name no secret of the caller; what a plan names is what it prints.
pub(crate) fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(lock) = LockFile::parse(&text) {
        assert_eq!(LockFile::parse(&lock.text()).ok(), Some(lock));
    }
    let file = match config::parse("phial.toml", &text) {
        Ok(file) => file,
        Err(error) => return refused(&error),
    };
    match TestPlan::new(&file.test, &TestFlags::default()) {
        Ok(plan) => plan.services.values().for_each(|service| stable(&service.image)),
        Err(error) => refused(&error),
    }
    match BuildPlan::new(file, SettingsOrigin::Image, None, &BuildFlags::default(), "app") {
        Ok(plan) => {
            stable(&plan.base);
            plan.targets.iter().for_each(stable);
            assert!(plan.prepare.visible().iter().all(|name| secret_of(name).is_none()));
            assert_eq!(plan.digest(), plan.clone().digest());
        }
        Err(error) => refused(&error),
    }
}
