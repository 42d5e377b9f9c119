//! Where this machine gets Debian from, for another suite: a site with a mirror of its own stays with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::error::BaseError;
use crate::error::IoError;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lines of a sources.list for `suite`, its updates and its security fixes, by this machine's own apt sources.
pub(super) fn of_this_machine(suite: &str) -> Result<Vec<String>, BaseError> {
    let path = Path::new("/etc/os-release");
    let release = fs::read_to_string(path).map_err(IoError::at("read", path))?;
    let own = codename(&release).ok_or(BaseError::NoMirror)?;
    let keyring = fs::exists(KEYRING).unwrap_or(false).then_some(KEYRING);

    // The origin of a source is known once its lists were fetched; before that, its suite has to do.
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    for arguments in [&["--format", &format!("{format} $(ORIGIN)")][..], &["--no-release-info", "--format", format][..]]
    {
        let lines = lines(&targets(arguments)?, own, suite, keyring);
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    Err(BaseError::NoMirror)
}

fn targets(arguments: &[&str]) -> Result<String, BaseError> {
    let output = Command::new("apt-get").arg("indextargets").args(arguments).arg("Created-By: Packages").output();
    match output {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(BaseError::Missing { program: "apt" }),
        Err(source) => Err(IoError { action: "run", path: "apt-get".into(), source }.into()),
    }
}

/// `VERSION_CODENAME` of os-release(5).
fn codename(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"'))
}

/// From `URI RELEASE COMPONENT [ORIGIN]` a line: Debian's own suites, with the suite's name replaced, each once.
fn lines(targets: &str, own: &str, suite: &str, keyring: Option<&str>) -> Vec<String> {
    let option = keyring.map(|file| format!("[signed-by={file}] ")).unwrap_or_default();
    let mut seen = BTreeSet::new();
    targets
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (uri, release, component) = (fields.next()?, fields.next()?, fields.next()?);
            let tail = release.strip_prefix(own)?;
            let ours = component == "main"
                && (tail.is_empty() || (!is_unstable(suite) && matches!(tail, "-updates" | "-security")))
                && fields.next().is_none_or(|origin| origin == "Debian");
            ours.then(|| format!("deb {option}{uri} {suite}{tail} main"))
        })
        .filter(|line| seen.insert(line.clone()))
        .collect()
}

/// Whether a suite is what becomes the next release: it has neither updates nor security fixes of its own.
fn is_unstable(suite: &str) -> bool {
    matches!(suite, "sid" | "experimental")
}

#[cfg(test)]
mod tests {
    use super::{codename, lines};

    #[test]
    fn debians_own_suites_are_taken_and_renamed_and_nothing_else() {
        let targets = "http://a/debian/ bookworm main Debian\n\
                       http://a/debian/ bookworm main Debian\n\
                       http://a/debian/ bookworm contrib Debian\n\
                       http://a/debian/ bookworm-updates main Debian\n\
                       http://a/debian/ bookworm-backports main Debian\n\
                       http://b/security/ bookworm-security main Debian\n\
                       http://c/tools/ bookworm main Somebody\n\
                       http://d/node/ nodistro main Node\n";
        assert_eq!(
            lines(targets, "bookworm", "trixie", Some("/k.gpg")),
            [
                "deb [signed-by=/k.gpg] http://a/debian/ trixie main",
                "deb [signed-by=/k.gpg] http://a/debian/ trixie-updates main",
                "deb [signed-by=/k.gpg] http://b/security/ trixie-security main",
            ]
        );
    }

    #[test]
    fn unstable_has_one_suite() {
        let targets = "http://a/debian/ trixie main\nhttp://a/debian/ trixie-updates main\nhttp://b/security/ trixie-security main\n";
        assert_eq!(lines(targets, "trixie", "sid", None), ["deb http://a/debian/ sid main"]);
    }

    #[test]
    fn a_source_of_unknown_origin_counts_by_its_suite() {
        assert_eq!(lines("http://a/x/ sid main\n", "sid", "trixie", None), ["deb http://a/x/ trixie main"]);
    }

    #[test]
    fn the_code_name_may_be_quoted() {
        assert_eq!(codename("NAME=x\nVERSION_CODENAME=\"trixie\"\n"), Some("trixie"));
        assert_eq!(codename("NAME=x\n"), None);
    }
}
