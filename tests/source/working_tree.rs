//! What Phial says of a working tree, beside what git says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use phial::source::{Location, fetch};

use super::{SourceTest, access, commit, git, notices_of, write};

/// Whether Phial reports changes of tracked files, and all that it says.
fn phial_status(test: &SourceTest, repo: &Path) -> (bool, String) {
    let location: Location = repo.to_str().expect("text").parse().expect("a location");
    let mut dirty = false;
    let output = notices_of(|watch| {
        let fetched = fetch(&location, "HEAD", &test.path("mirrors"), &access(&[]), watch).expect("fetched");
        dirty = fetched.report_changes(&|_| true, watch);
    });
    (dirty, output)
}

fn git_status(repo: &Path) -> String {
    git(repo, &["--no-optional-locks", "status", "--porcelain"]).trim_start().to_owned()
}

/// Gives a file another time, so that the index does not know whether it has changed.
fn touch(path: &Path) {
    let file = fs::File::options().write(true).open(path).expect("a file");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000)).expect("a time");
}

/// A repository with `attributes` and a filter `secret` that its configuration runs, after a checkout by git.
fn filtered(test: &SourceTest, attributes: &str) -> PathBuf {
    let repo = test.repo("shop");
    git(&repo, &["config", "filter.secret.clean", "touch .git/ran; tr a-z b-za"]);
    git(&repo, &["config", "filter.secret.smudge", "tr b-za a-z"]);
    write(&repo, ".gitattributes", attributes);
    repo
}

#[test]
fn files_that_a_sparse_checkout_leaves_out_are_no_changes() {
    for cone in ["--cone", "--no-cone"] {
        let test = SourceTest::new();
        let repo = test.repo("shop");
        write(&repo, "assets/big.css", "big\n");
        commit(&repo, "more");
        git(&repo, &["sparse-checkout", "set", cone, "lib"]);
        assert!(!repo.join("assets").exists());
        assert_eq!((git_status(&repo), phial_status(&test, &repo)), (String::new(), (false, String::new())));
        // git looks at such a file if it is there.
        write(&repo, "assets/big.css", "other\n");
        assert_eq!(git_status(&repo), "M assets/big.css");
        let (dirty, output) = phial_status(&test, &repo);
        assert!(dirty && output.contains("1 changed, 0 untracked, such as `assets/big.css`"), "{output}");
        write(&repo, "assets/big.css", "big\n");
        assert_eq!((git_status(&repo), phial_status(&test, &repo)), (String::new(), (false, String::new())));
        write(&repo, "lib/a.ex", "changed\n");
        assert!(phial_status(&test, &repo).0);
    }
}

#[test]
fn entries_that_the_index_does_not_follow_are_no_changes() {
    for flag in ["--skip-worktree", "--assume-unchanged"] {
        let test = SourceTest::new();
        let repo = test.repo("shop");
        git(&repo, &["update-index", flag, "lib/a.ex"]);
        write(&repo, "lib/a.ex", "changed here\n");
        assert_eq!((git_status(&repo), phial_status(&test, &repo)), (String::new(), (false, String::new())), "{flag}");
        fs::remove_file(repo.join("lib/a.ex")).unwrap();
        assert_eq!((git_status(&repo), phial_status(&test, &repo)), (String::new(), (false, String::new())), "{flag}");
        fs::remove_file(repo.join("mix.exs")).unwrap();
        assert!(phial_status(&test, &repo).0, "{flag}");
    }
}

#[test]
fn a_file_that_only_a_filter_can_compare_is_not_called_changed() {
    let test = SourceTest::new();
    let repo = filtered(&test, "*.key filter=secret\n");
    write(&repo, "prod.key", "hal\n");
    commit(&repo, "a key");
    assert_eq!(git(&repo, &["show", "HEAD:prod.key"]), "ibm");
    fs::remove_file(repo.join("prod.key")).unwrap();
    git(&repo, &["checkout", "-q", "."]);
    fs::remove_file(repo.join(".git/ran")).unwrap();
    assert_eq!((git_status(&repo), phial_status(&test, &repo)), (String::new(), (false, String::new())));
    // Its time alone says nothing, and its program is not run.
    touch(&repo.join("prod.key"));
    let _ = fs::remove_file(repo.join(".git/ran"));
    let (dirty, output) = phial_status(&test, &repo);
    assert!(!dirty && output.contains("without comparing 1 of the working tree's files with it, such as `prod.key`"));
    assert!(!repo.join(".git/ran").exists(), "the filter was run");
    assert_eq!(git_status(&repo), "");
    // Another size is another file, for git too.
    write(&repo, "prod.key", "longer\n");
    assert_eq!(git_status(&repo), "M prod.key");
    let (dirty, output) = phial_status(&test, &repo);
    assert!(dirty && output.contains("1 changed, 0 untracked, such as `prod.key`"), "{output}");
    // A filter that is not configured is none.
    git(&repo, &["checkout", "-q", "."]);
    git(&repo, &["config", "--remove-section", "filter.secret"]);
    touch(&repo.join("prod.key"));
    assert!(phial_status(&test, &repo).0 && git_status(&repo) == "M prod.key");
}

#[test]
fn a_file_in_another_encoding_is_compared_with_its_blob() {
    let test = SourceTest::new();
    let repo = filtered(&test, "*.txt working-tree-encoding=UTF-16 text eol=crlf\n");
    let utf16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let path = repo.join("names.txt");
    fs::write(&path, utf16("Jürgen\r\n")).unwrap();
    commit(&repo, "names");
    assert_eq!(git(&repo, &["show", "HEAD:names.txt"]), "Jürgen");
    for (text, status) in [("Jürgen\r\n", ""), ("Jürgem\r\n", "M names.txt")] {
        fs::write(&path, utf16(text)).unwrap();
        touch(&path);
        let (dirty, output) = phial_status(&test, &repo);
        assert_eq!((git_status(&repo).as_str(), dirty), (status, !status.is_empty()), "{text}: {output}");
        assert_eq!(output.is_empty(), status.is_empty(), "{output}");
    }
}

#[test]
fn a_file_of_git_lfs_is_compared_with_its_pointer() {
    let test = SourceTest::new();
    let repo = filtered(&test, "*.bin filter=lfs\n");
    // The pointer that git-lfs writes, which need not be installed.
    let clean =
        "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize 4\\n' $(sha256sum | cut -d' ' -f1)";
    git(&repo, &["config", "filter.lfs.clean", clean]);
    write(&repo, "logo.bin", "big\n");
    commit(&repo, "a logo");
    assert!(git(&repo, &["show", "HEAD:logo.bin"]).starts_with("version https://git-lfs"));
    for (text, status) in [("big\n", ""), ("bag\n", "M logo.bin")] {
        write(&repo, "logo.bin", text);
        touch(&repo.join("logo.bin"));
        let (dirty, output) = phial_status(&test, &repo);
        assert_eq!((git_status(&repo).as_str(), dirty), (status, !status.is_empty()), "{text}: {output}");
    }
    // The index may have the size of neither: a mode is a change all the same.
    write(&repo, "logo.bin", "big\n");
    fs::set_permissions(repo.join("logo.bin"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(phial_status(&test, &repo).0 && git_status(&repo) == "M logo.bin");
}
