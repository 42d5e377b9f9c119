//! Reduces the repository of a git dependency, `deps/*/.git`, to what Mix reads of it: the commit and the URL of its
//! origin.
//!
//! Mix runs `git config remote.origin.url` and `git rev-parse --verify HEAD` there before every command and compares
//! the output with `mix.lock`. The rest (objects, index, logs) has the times of the clone and doubles the size of the
//! dependency.

use std::fs;
use std::io;
use std::path::Path;

/// What Mix reads of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// `remote.origin.url` as written in git's config, with quotes and escapes.
    pub url: String,
}

/// Reads the repository `git`; `None` if it has no commit or no origin.
pub(super) fn read(git: &Path) -> io::Result<Option<Head>> {
    let (Some(head), Some(config)) = (text(&git.join("HEAD"))?, text(&git.join("config"))?) else { return Ok(None) };
    let commit = match head.trim_end().strip_prefix("ref: ") {
        Some(name) => resolve(git, name)?,
        None => Some(head.trim_end().to_owned()),
    };
    let commit = commit.filter(|sha| sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit()));
    Ok(commit.zip(origin_url(&config)).map(|(commit, url)| Head { commit, url }))
}

/// Replaces the repository `git` by the smallest one with the same commit and origin.
pub(super) fn write(git: &Path, head: &Head) -> io::Result<()> {
    fs::remove_dir_all(git)?;
    fs::create_dir(git)?;
    fs::create_dir(git.join("objects"))?;
    fs::create_dir(git.join("refs"))?;
    fs::write(git.join("HEAD"), format!("{}\n", head.commit))?;
    let config =
        format!("[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = {}\n", head.url);
    fs::write(git.join("config"), config)
}

/// `url` without user information. Unchanged if the same URL is in `lock`: Mix compares both, and the commit has it
/// anyway.
pub(super) fn public_url(url: &str, lock: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let Some((_, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    if !matches!(scheme, "http" | "https") || lock.contains(&format!("\"{url}\"")) {
        return url.to_owned();
    }
    format!("{scheme}://{host}{}", &rest[authority.len()..])
}

/// The text of a file; `None` if it does not exist or is not UTF-8.
fn text(path: &Path) -> io::Result<Option<String>> {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    Ok(String::from_utf8(fs::read(path)?).ok())
}

fn resolve(git: &Path, name: &str) -> io::Result<Option<String>> {
    if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    if let Some(sha) = text(&git.join(name))? {
        return Ok(Some(sha.trim_end().to_owned()));
    }
    let packed = text(&git.join("packed-refs"))?.unwrap_or_default();
    Ok(packed.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned)))
}

fn origin_url(config: &str) -> Option<String> {
    let mut inside = false;
    let mut url = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[remote \"origin\"]";
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim().eq_ignore_ascii_case("url")
        {
            url = Some(value.trim().to_owned());
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "8d10bf0535b388ae53381fd4fb5bf534e19103b3";
    const CONFIG: &str = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://h/r.git\n\tfetch = +refs\n";

    fn repository(head: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("HEAD"), head).expect("HEAD");
        fs::write(dir.path().join("config"), CONFIG).expect("config");
        dir
    }

    #[test]
    fn a_detached_head_and_a_branch_are_read_the_same() {
        let expected = Some(Head { commit: SHA.into(), url: "https://h/r.git".into() });
        let detached = repository(&format!("{SHA}\n"));
        assert_eq!(read(detached.path()).expect("read"), expected);
        let branch = repository("ref: refs/heads/main\n");
        assert_eq!(read(branch.path()).expect("read"), None, "an unborn branch has no commit");
        fs::write(branch.path().join("packed-refs"), format!("# pack\n{SHA} refs/heads/main\n")).expect("refs");
        assert_eq!(read(branch.path()).expect("read"), expected);
    }

    #[test]
    fn git_itself_reads_the_small_repository() {
        let dir = tempfile::tempdir().expect("a directory");
        let git = dir.path().join(".git");
        fs::create_dir_all(git.join("logs")).expect("logs");
        fs::write(git.join("index"), "stat data").expect("index");
        write(&git, &Head { commit: SHA.into(), url: "https://h/r.git".into() }).expect("written");
        let ask = |args: &[&str]| {
            let out = std::process::Command::new("git")
                .arg("--git-dir=.git")
                .args(args)
                .current_dir(dir.path())
                .output()
                .expect("git runs");
            String::from_utf8(out.stdout).expect("text")
        };
        assert_eq!(ask(&["rev-parse", "--verify", "--quiet", "HEAD"]), format!("{SHA}\n"));
        assert_eq!(ask(&["config", "remote.origin.url"]), "https://h/r.git\n");
        assert!(!git.join("index").exists() && !git.join("logs").exists());
    }

    #[test]
    fn a_reference_does_not_lead_out_of_the_repository() {
        let dir = repository("ref: refs/../../secret\n");
        assert_eq!(read(dir.path()).expect("read"), None);
    }

    #[test]
    fn a_token_in_a_url_is_removed_unless_it_is_in_the_lock() {
        let url = "https://user:token@h/r.git";
        assert_eq!(public_url(url, "%{}"), "https://h/r.git");
        assert_eq!(public_url(url, &format!("{{:git, \"{url}\", \"abc\", []}}")), url);
        assert_eq!(public_url("ssh://git@h/r.git", ""), "ssh://git@h/r.git");
        assert_eq!(public_url("git@h:r.git", ""), "git@h:r.git");
        assert_eq!(public_url("https://h/a@b.git", ""), "https://h/a@b.git");
    }
}
