//! Files that git does not write as it stores them: by an encoding or a filter of `.gitattributes`.

use std::fs;

use phial::error::UserError as _;
use phial::source::{checkout, list, report_differences};

use super::{SourceTest, T, commit, full_message, git, notices_of, write};
use crate::harness::busybox::busybox_base;
use crate::harness::{TestEnv, run};

#[test]
fn a_file_has_the_encoding_that_git_gives_it() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    write(
        &repo,
        ".gitattributes",
        "[attr]wide working-tree-encoding=UTF-16LE-BOM\n*.ps1 wide\n*.txt working-tree-encoding=latin1\n",
    );
    write(&repo, "sub/.gitattributes", "*.txt working-tree-encoding=UTF-16\nplain.ps1 -working-tree-encoding\n");
    fs::write(repo.join("run.ps1"), b"\xff\xfeh\0\xe9\0\n\0").unwrap();
    fs::write(repo.join("name.txt"), b"J\xfcrgen\n").unwrap();
    fs::write(repo.join("sub/name.txt"), b"\xff\xfeJ\0\xfc\0").unwrap();
    write(&repo, "sub/empty.txt", "");
    write(&repo, "sub/plain.ps1", "plain\n");
    write(&repo, "sub/deep/run.ps1", "");
    commit(&repo, "encoded");
    assert_eq!(git(&repo, &["show", "HEAD:run.ps1"]), "hé");
    git(&repo, &["clone", "-q", ".", "../as-git"]);
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    checkout(&fetched, &test.path("tree"), T).unwrap();
    for name in ["run.ps1", "name.txt", "sub/name.txt", "sub/empty.txt", "sub/plain.ps1", "sub/deep/run.ps1"] {
        let as_git = fs::read(test.path("as-git").join(name)).unwrap();
        assert_eq!(fs::read(test.path("tree").join(name)).unwrap(), as_git, "{name}");
    }
    assert_eq!(fs::read(test.path("tree/name.txt")).unwrap(), b"J\xfcrgen\n");
}

#[test]
fn a_file_that_cannot_have_its_encoding_is_refused() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    write(&repo, "name.txt", "snow: ☃\n");
    commit(&repo, "a name");
    write(&repo, ".gitattributes", "*.txt working-tree-encoding=ISO-8859-1\n");
    git(&repo, &["add", ".gitattributes"]);
    git(&repo, &["commit", "-q", "-m", "an encoding"]);
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let error = checkout(&fetched, &test.path("tree"), T).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(error.to_string().contains("`name.txt` cannot be written in ISO-8859-1"), "{}", full_message(&error));
}

#[test]
fn files_of_filters_are_named_whatever_a_clone_or_a_user_configures() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    write(&repo, ".gitattributes", "*.key filter=git-crypt\nmix.exs filter\n*.sjis working-tree-encoding=SHIFT-JIS\n");
    write(&repo, "prod.key", "\0GITCRYPT\0");
    write(&repo, "a.sjis", "a\n");
    commit(&repo, "a key");
    write(&repo, ".git/info/attributes", "lib/** filter=mine\n");
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let output = notices_of(|watch| report_differences(&list(&fetched).unwrap(), watch));
    let named = "`a.sjis` (working-tree-encoding=SHIFT-JIS), `prod.key` (filter=git-crypt); what";
    assert!(output.contains(named), "{output}");
    let first = test.fetch(repo.to_str().unwrap(), "v1").unwrap();
    assert_eq!(notices_of(|watch| report_differences(&list(&first).unwrap(), watch)), "");
}

#[test]
fn each_build_names_the_files_of_filters() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let build = || run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out", "--json"]));
    repo.write(".gitattributes", "*.key filter=git-crypt\n");
    repo.write("prod.key", "sealed\n");
    repo.commit("a key");
    for _ in 0..2 {
        let built = build();
        assert_eq!(built.code, Some(0), "{}", built.stderr);
        assert!(built.stderr.contains("`prod.key` (filter=git-crypt)"), "{}", built.stderr);
    }
}

#[test]
fn attributes_that_take_too_long_are_refused() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let macros = (0..300).map(|n| format!("[attr]m{n} m{}", n + 1)).collect::<Vec<_>>().join("\n");
    write(&repo, ".gitattributes", &macros);
    commit(&repo, "macros");
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let error = list(&fetched).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(error.to_string().contains("`.gitattributes`"), "{}", full_message(&error));
}
