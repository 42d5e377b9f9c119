//! Reduces the repository of a git dependency, `deps/*/.git`, to what Mix reads of it: the commit and the URL of its
//! origin.
//!
//! Mix runs `git config remote.origin.url` and `git rev-parse --verify HEAD` there before every command and compares
//! the output with `mix.lock`. The rest (objects, index, logs) has the times of the clone and doubles the size of the
//! dependency.

use std::path::Path;

use crate::error::IoError;
use crate::tree::TreeDir;

/// The most that is read of a file of a repository, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What Mix reads of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// `remote.origin.url` as written in git's config, with quotes and escapes.
    pub url: String,
}

/// Reads the repository `git`; `None` if it has no commit or no origin.
pub(super) fn read(git: &TreeDir) -> Result<Option<Head>, IoError> {
    let (Some(head), Some(config)) = (text(git, "HEAD")?, text(git, "config")?) else { return Ok(None) };
    let commit = match head.trim_end().strip_prefix("ref: ") {
        Some(name) => resolve(git, name)?,
        None => Some(head.trim_end().to_owned()),
    };
    let commit = commit.filter(|sha| sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit()));
    Ok(commit.zip(origin_url(&config)).map(|(commit, url)| Head { commit, url }))
}

/// Replaces the repository at `path` by the smallest one with the same commit and origin.
pub(super) fn write(tree: &TreeDir, path: &Path, head: &Head) -> Result<(), IoError> {
    tree.remove_all(path)?;
    for dir in [path, &path.join("objects"), &path.join("refs")] {
        tree.create_dir(dir)?;
        tree.set_mode(dir, 0o755)?; // whatever the umask
    }
    let config =
        format!("[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = {}\n", head.url);
    for (name, text) in [("HEAD", format!("{}\n", head.commit)), ("config", config)] {
        tree.replace(path.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(())
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

/// The text of a file; `None` if it does not exist, is too large or is not UTF-8.
fn text(git: &TreeDir, path: &str) -> Result<Option<String>, IoError> {
    match git.read_text(path, MAX_FILE) {
        Err(error) if error.source.kind() == std::io::ErrorKind::FileTooLarge => Ok(None),
        other => other,
    }
}

fn resolve(git: &TreeDir, name: &str) -> Result<Option<String>, IoError> {
    if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    if let Some(sha) = text(git, name)? {
        return Ok(Some(sha.trim_end().to_owned()));
    }
    let packed = text(git, "packed-refs")?.unwrap_or_default();
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
    use std::fs;

    use super::*;

    const SHA: &str = "8d10bf0535b388ae53381fd4fb5bf534e19103b3";
    const CONFIG: &str = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://h/r.git\n\tfetch = +refs\n";

    fn repository(head: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("HEAD"), head).expect("HEAD");
        fs::write(dir.path().join("config"), CONFIG).expect("config");
        dir
    }

    fn open(dir: &tempfile::TempDir) -> TreeDir {
        TreeDir::open(dir.path()).expect("open")
    }

    #[test]
    fn a_detached_head_and_a_branch_are_read_the_same() {
        let expected = Some(Head { commit: SHA.into(), url: "https://h/r.git".into() });
        let detached = repository(&format!("{SHA}\n"));
        assert_eq!(read(&open(&detached)).expect("read"), expected);
        let branch = repository("ref: refs/heads/main\n");
        assert_eq!(read(&open(&branch)).expect("read"), None, "an unborn branch has no commit");
        fs::write(branch.path().join("packed-refs"), format!("# pack\n{SHA} refs/heads/main\n")).expect("refs");
        assert_eq!(read(&open(&branch)).expect("read"), expected);
    }

    #[test]
    fn git_itself_reads_the_small_repository() {
        let dir = tempfile::tempdir().expect("a directory");
        let git = dir.path().join(".git");
        fs::create_dir_all(git.join("logs")).expect("logs");
        fs::write(git.join("index"), "stat data").expect("index");
        write(&open(&dir), Path::new(".git"), &Head { commit: SHA.into(), url: "https://h/r.git".into() })
            .expect("written");
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
        assert_eq!(read(&open(&dir)).expect("read"), None);
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
