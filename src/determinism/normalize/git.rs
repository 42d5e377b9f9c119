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

/// White space in git's config.
const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];
/// What begins a comment there.
const COMMENT: [char; 2] = ['#', ';'];

/// What Mix reads of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// `remote.origin.url`, as `git config` prints it.
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
    for (name, text) in [("HEAD", format!("{}\n", head.commit)), ("config", config(&head.url))] {
        tree.replace(path.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The config of a repository with this URL, which is quoted where git would not read it as it is.
pub(super) fn config(url: &str) -> String {
    let is_plain = !url.contains(['"', '\\', '#', ';']) && url.trim_matches(WHITE) == url;
    let url = if is_plain { url.to_owned() } else { format!("\"{}\"", url.replace('\\', "\\\\").replace('"', "\\\"")) };
    format!("[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = {url}\n")
}

/// `url` without user information. Unchanged if the same URL is in `lock`: Mix compares both, and the commit has it
/// anyway.
pub(super) fn public_url(url: &str, lock: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((_, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !is_http || lock.contains(&format!("\"{url}\"")) {
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

/// The last `url` of the section `[remote "origin"]`, as `git config` prints it; `None` if there is none, if it has control
/// characters, or if git could not read the file (git-config(1), "Syntax"). Includes are not followed.
pub(super) fn origin_url(config: &str) -> Option<String> {
    let config = config.replace("\r\n", "\n");
    let mut rest = config.strip_prefix('\u{feff}').unwrap_or(&config);
    let (mut is_origin, mut url) = (false, None);
    loop {
        rest = rest.trim_start_matches(WHITE);
        if rest.is_empty() {
            return url.filter(|url: &String| !url.is_empty() && !url.contains(char::is_control));
        }
        if rest.starts_with(COMMENT) {
            rest = rest.trim_start_matches(|c| c != '\n');
        } else if let Some(header) = rest.strip_prefix('[') {
            let (name, after) = section(header)?;
            (is_origin, rest) = (name == "remote.origin", after);
        } else {
            let after = rest.strip_prefix(|c: char| c.is_ascii_alphabetic())?.trim_start_matches(is_key);
            let key = &rest[..rest.len() - after.len()];
            let after = after.trim_start_matches([' ', '\t']);
            if let Some(text) = after.strip_prefix('=') {
                let (text, after) = value(text)?;
                if is_origin && key.eq_ignore_ascii_case("url") {
                    url = Some(text);
                }
                rest = after;
            } else if after.is_empty() || after.starts_with('\n') {
                rest = after;
            } else {
                return None;
            }
        }
    }
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// The name of a section, `SECTION.SUBSECTION`, and what follows its bracket.
fn section(header: &str) -> Option<(String, &str)> {
    let after = header.trim_start_matches(|c| is_key(c) || c == '.');
    let mut name = header[..header.len() - after.len()].to_ascii_lowercase();
    if let Some(after) = after.strip_prefix(']') {
        return Some((name, after));
    }
    let mut chars = after.strip_prefix([' ', '\t'])?.trim_start_matches([' ', '\t']).strip_prefix('"')?.chars();
    name.push('.');
    loop {
        match chars.next()? {
            '"' => return Some((name, chars.as_str().strip_prefix(']')?)),
            '\\' => name.push(chars.next().filter(|c| *c != '\n')?),
            '\n' => return None,
            c => name.push(c),
        }
    }
}

/// A value up to the end of its line, without quotes and escapes, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut without_trailing_space, mut is_quoted) = (String::new(), 0, false);
    let mut chars = text.chars();
    loop {
        match chars.next() {
            None | Some('\n') if is_quoted => return None,
            None | Some('\n') => break,
            Some(c) if !is_quoted && COMMENT.contains(&c) => {
                let rest = chars.as_str().trim_start_matches(|c| c != '\n');
                chars = rest.chars();
                continue;
            }
            Some(c) if !is_quoted && WHITE.contains(&c) => {
                if !value.is_empty() {
                    value.push(c);
                }
                continue;
            }
            Some('"') => is_quoted = !is_quoted,
            Some('\\') => match chars.next()? {
                '\n' => {}
                't' => value.push('\t'),
                'b' => value.push('\u{8}'),
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                _ => return None,
            },
            Some(c) => value.push(c),
        }
        without_trailing_space = value.len();
    }
    value.truncate(without_trailing_space);
    Some((value, chars.as_str()))
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
    fn the_url_is_the_one_that_git_reads() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        for config in [
            CONFIG,
            "[remote \"origin\"]\r\n\turl = https://h/r.git\r\n",
            "[remote \"origin\"] url = \"https://u:a;b@h/#r\" ; comment\n",
            "\u{feff}[REMOTE \t \"origin\"]\n# url = x\n; url = x\nURL=\\\"a\\\\b\\\"  c # d\n",
            "[remote.Origin]\nurl = old\n[remote \"Origin\"]\nurl = other\n[remote \"o\\rigin\"]\nurl = new\n",
            "[remote \"origin\"]\nurl = a\\\nb\nurl-x = y\nurl = \" a\" \"b \"\n",
            "[remote \"origin\"]\nfetch\nurl = first\nurl = last",
            "[remote \"origin\"]\nurl =\n",
            "[remote \"origin\"]\nurl = a\\tb\n",
            "[remote \"origin\"]\nurl = a\\xb\n",
            "[remote \"origin\"]\nurl = \"a\n",
            "[remote \"origin\"\nurl = a\n",
            "[remote origin]\nurl = a\n",
            "[remote \"origin\"]\nurl = a\nfetch x\n",
            "[remote \"origin\"]\n1url = a\n",
            "[remote \"ori\ngin\"]\nurl = a\n",
        ] {
            fs::write(&file, config).expect("config");
            let mut git = std::process::Command::new("git");
            let out = git.args(["config", "--file"]).arg(&file).arg("remote.origin.url").output().expect("git runs");
            let printed = String::from_utf8(out.stdout).expect("text");
            let expected = out.status.success().then(|| printed.strip_suffix('\n').expect("a line").to_owned());
            let expected = expected.filter(|url| !url.is_empty() && !url.contains('\t'));
            assert_eq!(origin_url(config), expected, "{config}");
        }
    }

    #[test]
    fn a_token_in_a_url_that_git_quotes_is_removed_too() {
        let dir = repository(&format!("{SHA}\n"));
        let url = "https://user:to;ken@h/r#1.git";
        fs::write(dir.path().join("config"), format!("[remote \"origin\"]\n\turl = \"{url}\"\n")).expect("config");
        let head = read(&open(&dir)).expect("read").expect("a repository");
        assert_eq!(head.url, url);
        let public = Head { url: public_url(&head.url, "%{}"), ..head };
        let new = tempfile::tempdir().expect("a directory");
        write(&open(&new), Path::new("git"), &public).expect("written");
        let written = new.path().join("git");
        assert!(
            fs::read_to_string(written.join("config")).expect("config").ends_with("\turl = \"https://h/r#1.git\"\n")
        );
        assert_eq!(read(&TreeDir::open(&written).expect("open")).expect("read"), Some(public));
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
        assert_eq!(public_url("https://h?x=a@b", ""), "https://h?x=a@b");
        assert_eq!(public_url("HTTPS://token@h/r.git", ""), "HTTPS://h/r.git");
    }
}
