//! A commit's tree on disk: the same bytes, modes and times for everyone, and nothing where it must not be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use phial::error::UserError as _;
use phial::host::Host;
use phial::source::{EntryMode, checkout, list, read_file, report_differences};

use super::{SourceTest, T, commit, full_message, git, git_with, notices_of, seen, write};
use crate::harness::git_http::GitServer;
use crate::harness::skip::skip_part;

/// A repository in which git, asked in the usual way, would write other bytes than it holds.
fn tricky(test: &SourceTest) -> PathBuf {
    let repo = test.repo("tricky");
    write(
        &repo,
        ".gitattributes",
        "*.bat eol=crlf\n*.txt ident export-subst\n*.u16 working-tree-encoding=UTF-16\nno export-ignore\n*.x filter=canary\n",
    );
    write(&repo, "run.bat", "one\ntwo\n");
    write(&repo, "id.txt", "$Id$ $Format:%H$\n");
    write(&repo, "no", "kept\n");
    write(&repo, "a.x", "plain\n");
    write(&repo, "bin/tool", "#!/bin/sh\n");
    write(&repo, "bin-/z", "sorts before bin/\n");
    write(&repo, "bin.d/z", "too\n");
    fs::set_permissions(repo.join("bin/tool"), fs::Permissions::from_mode(0o750)).expect("a mode");
    std::os::unix::fs::symlink("../../etc/passwd", repo.join("bin/up")).expect("a link");
    std::os::unix::fs::symlink("nowhere", repo.join("dangling")).expect("a link");
    fs::write(repo.join(std::ffi::OsStr::from_bytes(b"caf\xe9\n")), "latin\n").expect("written");
    let crlf = git_with(&repo, &["hash-object", "-w", "--stdin", "--no-filters"], b"mixed\r\nends\n");
    git(&repo, &["add", "-A"]);
    git(&repo, &["update-index", "--add", "--cacheinfo", &format!("100644,{crlf},crlf.bat")]);
    git(&repo, &["commit", "-q", "-m", "tricky"]);
    repo
}

fn tricky_tree() -> BTreeMap<String, String> {
    let file = |name: &str, mode: &str, text: &str| (name.to_owned(), format!("{mode} {T} {}", text.escape_default()));
    let mut tree: BTreeMap<String, String> =
        ["", "bin", "bin-", "bin.d", "lib"].iter().map(|name| file(name, "755", "/")).collect();
    tree.extend([
        file("mix.exs", "644", "defmodule A do\nend\n"),
        file("lib/a.ex", "644", "1\n"),
        file(".gitattributes", "644", "*.bat eol=crlf\n*.txt ident export-subst\n*.u16 working-tree-encoding=UTF-16\nno export-ignore\n*.x filter=canary\n"),
        file("run.bat", "644", "one\ntwo\n"),
        file("crlf.bat", "644", "mixed\r\nends\n"),
        file("id.txt", "644", "$Id$ $Format:%H$\n"),
        file("no", "644", "kept\n"),
        file("a.x", "644", "plain\n"),
        file("bin/tool", "755", "#!/bin/sh\n"),
        file("bin-/z", "644", "sorts before bin/\n"),
        file("bin.d/z", "644", "too\n"),
        file("bin/up", "0", "../../etc/passwd"),
        file("dangling", "0", "nowhere"),
        file("caf\\xe9\\n", "644", "latin\n"),
    ]);
    tree
}

#[test]
fn a_tree_holds_the_bytes_of_its_blobs_with_normal_modes_and_one_time() {
    let test = SourceTest::new();
    let repo = tricky(&test);
    let server = GitServer::start(test.dir.path());
    let here = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let there = test.fetch(&format!("{}/tricky/.git", server.url), "HEAD").unwrap();
    assert_eq!(test.tree(&here, "here"), tricky_tree());
    assert_eq!(test.tree(&there, "there"), tricky_tree());
    let entries = list(&here).unwrap();
    assert!(entries.is_sorted() && entries == list(&there).unwrap());
    let modes: Vec<_> = entries.iter().filter(|e| e.name.as_bytes().starts_with(b"bin/")).map(|e| e.mode).collect();
    assert_eq!(modes, [EntryMode::Executable, EntryMode::Symlink]);
}

/// Not a test by itself: the part of the next one that needs a process of its own.
#[test]
#[ignore = "run by a_umask_and_a_global_configuration_change_nothing"]
fn in_another_process() {
    let host = Host::read();
    let (location, test) = (host.var("TEST_PLACE").expect("a place"), SourceTest::new());
    let fetched = test.fetch(location, "HEAD").unwrap();
    assert_eq!(test.tree(&fetched, "tree"), tricky_tree());
}

#[test]
fn a_umask_and_a_global_configuration_change_nothing() {
    let test = SourceTest::new();
    let repo = tricky(&test);
    let server = GitServer::start(test.dir.path());
    let home = test.path("home");
    write(
        &home,
        ".gitconfig",
        &format!(
            "[core]\nautocrlf = true\nsymlinks = false\nfileMode = false\nhooksPath = {home}/hooks\nfsmonitor = {home}/run\n\
             attributesFile = {home}/attributes\n[url \"http://127.0.0.1:1/\"]\ninsteadOf = http://\n\
             [filter \"canary\"]\nsmudge = touch {home}/ran; cat\nrequired = true\n[http]\nproxy = http://127.0.0.1:1\n\
             [init]\ntemplateDir = {home}/template\n[transfer]\nfsckObjects = true\n",
            home = home.display()
        ),
    );
    write(&home, "attributes", "* text eol=crlf ident\n");
    write(&home, "run", "#!/bin/sh\ntouch $0.ran\n");
    for location in [format!("{}/tricky/.git", server.url), repo.to_str().unwrap().to_owned()] {
        for umask in ["0077", "0000", "0777"] {
            if umask == "0777" && rustix::process::geteuid().as_raw() != 0 {
                skip_part!("umask 0777 needs root, whom no mode keeps out of the cache");
                continue;
            }
            let this = std::env::current_exe().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(this);
            command.args(["--exact", "source::checkout::in_another_process", "--ignored"]);
            command.env("HOME", &home).env("XDG_CONFIG_HOME", &home).env("TEST_PLACE", &location);
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{location} {umask}: {text}");
        }
    }
    assert!(!home.join("ran").exists() && !home.join("run.ran").exists());
}

#[test]
fn an_entry_that_must_not_reach_a_disk_is_refused_and_nothing_is_written() {
    let test = SourceTest::new();
    let repo = test.repo("bad");
    let odb = git2::Repository::open(&repo).unwrap();
    let odb = odb.odb().unwrap();
    let blob = odb.write(git2::ObjectType::Blob, b"evil\n").unwrap();
    let nul = odb.write(git2::ObjectType::Blob, b"a\0b").unwrap();
    let raw = |entries: &[(&str, &str, git2::Oid)]| {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend_from_slice(id.as_bytes());
        }
        odb.write(git2::ObjectType::Tree, &bytes).unwrap()
    };
    let inner = raw(&[("100644", "passwd", blob)]);
    let cases: Vec<Vec<(&str, &str, git2::Oid)>> = vec![
        vec![("100644", ".git", blob)],
        vec![("40000", ".GIT", inner)],
        vec![("40000", "git~1", inner)],
        vec![("100644", ".git ", blob)],
        vec![("100644", ".g\u{200c}it", blob)],
        vec![("40000", "..", inner)],
        vec![("100644", ".", blob)],
        vec![("100644", "", blob)],
        vec![("100644", "a/b", blob)],
        vec![("100644", "/etc/x", blob)],
        vec![("120000", "link", blob), ("40000", "link", inner)],
        vec![("100644", "twice", blob), ("100644", "twice", blob)],
        vec![("120000", "nul", nul)],
        vec![("000000", "none", blob)],
        vec![("100644", "tree", inner)],
        vec![("40000", "blob", blob)],
    ];
    for (n, entries) in cases.iter().enumerate() {
        let tree = raw(entries);
        let sha = git(&repo, &["commit-tree", "-m", "bad", &tree.to_string()]);
        let fetched = test.fetch(repo.to_str().unwrap(), &sha).unwrap();
        let dest = test.path(&format!("out{n}/tree"));
        fs::create_dir_all(dest.parent().unwrap()).unwrap();
        let error = checkout(&fetched, &dest, T).unwrap_err();
        assert_eq!(error.exit_kind().code(), 3, "{entries:?}: {}", full_message(&error));
        let left: Vec<_> = walkdir::WalkDir::new(dest.parent().unwrap())
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .collect();
        assert!(left.is_empty(), "{entries:?}: {left:?}");
    }
}

#[test]
fn a_tree_that_repeats_itself_or_is_too_deep_is_refused_before_anything_is_written() {
    let test = SourceTest::new();
    let repo = test.repo("bomb");
    let tree = |entries: &str| git_with(&repo, &["mktree"], entries.as_bytes());
    let first = tree(&format!("100644 blob {}\tf\n", git_with(&repo, &["hash-object", "-w", "--stdin"], b"boom\n")));
    let wide = (0..7).fold(first.clone(), |below, _| {
        tree(&(0..10).map(|n| format!("040000 tree {below}\t{n}")).collect::<Vec<_>>().join("\n"))
    });
    let deep = (0..150).fold(first, |below, _| tree(&format!("040000 tree {below}\td\n")));
    // Directories without a file count too.
    let empty = (0..60).fold(tree(""), |below, _| tree(&format!("040000 tree {below}\ta\n040000 tree {below}\tb\n")));
    for root in [wide, deep, empty] {
        let sha = git(&repo, &["commit-tree", "-m", "bomb", &root]);
        let fetched = test.fetch(repo.to_str().unwrap(), &sha).unwrap();
        let error = checkout(&fetched, &test.path("tree"), T).unwrap_err();
        assert!(
            error.exit_kind().code() == 3 && full_message(&error).contains("too deep or too large"),
            "{}",
            full_message(&error)
        );
        assert!(!test.path("tree").exists());
    }
}

#[test]
fn a_directory_of_millions_of_entries_is_refused_by_its_size() {
    let test = SourceTest::new();
    let repo = test.repo("wide");
    let blob = git_with(&repo, &["hash-object", "-w", "--stdin"], b"x\n");
    let id: Vec<u8> = (0..20).map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).expect("hex")).collect();
    let entry = [b"100644 f\0", id.as_slice()].concat();
    let large =
        git_with(&repo, &["hash-object", "-t", "tree", "-w", "--stdin", "--literally"], &entry.repeat(2_400_000));
    let above = git_with(&repo, &["mktree"], format!("040000 tree {large}\td\n").as_bytes());
    for root in [large, above] {
        let sha = git(&repo, &["commit-tree", "-m", "wide", &root]);
        let fetched = test.fetch(repo.to_str().unwrap(), &sha).unwrap();
        let error = list(&fetched).unwrap_err();
        assert_eq!(error.exit_kind().code(), 3, "{}", full_message(&error));
        assert!(full_message(&error).contains("more than 64 MiB"), "{}", full_message(&error));
    }
}

#[test]
fn submodules_that_are_not_fetched_are_named() {
    let test = SourceTest::new();
    let (repo, module) = (test.repo("shop"), test.repo("module"));
    git(&repo, &["submodule", "--quiet", "add", module.to_str().unwrap(), "vendor/module"]);
    commit(&repo, "more");
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let output = notices_of(|watch| {
        report_differences(&list(&fetched).unwrap(), watch);
        checkout(&fetched, &test.path("tree"), T).unwrap();
    });
    assert!(output.contains("empty directories: `vendor/module`"), "{output}");
    let tree = seen(&test.path("tree"));
    assert_eq!(tree["vendor/module"], format!("755 {T} /"));
    assert!(!tree.contains_key("vendor/module/mix.exs"));
}

#[test]
fn a_file_of_the_commit_is_read_without_a_checkout() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    std::os::unix::fs::symlink("mix.exs", repo.join("link")).unwrap();
    write(&repo, "big", &"x".repeat((1 << 20) + 1));
    commit(&repo, "more");
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
    for none in ["phial.toml", "lib/b.ex", "mix.exs/x", "../mix.exs", ""] {
        assert_eq!(read_file(&fetched, none).unwrap(), None, "{none}");
    }
    for bad in ["link", "lib", "big"] {
        assert_eq!(read_file(&fetched, bad).unwrap_err().exit_kind().code(), 3, "{bad}");
    }
}

#[test]
fn a_checkout_into_a_directory_that_is_not_empty_is_refused() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    write(&test.path("full"), "mine", "kept\n");
    assert_eq!(checkout(&fetched, &test.path("full"), T).unwrap_err().exit_kind().code(), 6);
    assert_eq!(seen(&test.path("full")).len(), 2);
    let elsewhere = test.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, test.path("link")).unwrap();
    assert_eq!(checkout(&fetched, &test.path("link"), T).unwrap_err().exit_kind().code(), 6);
    assert_eq!(seen(&elsewhere).len(), 1);
}
