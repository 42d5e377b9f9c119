//! A repository on this machine, read in location.

use std::fs;
use std::process::Command;

use phial::error::UserError as _;
use phial::event::discard;
use phial::source::{Location, checkout, fetch, read_file, working_tree_position};

use crate::harness::git_http::GitServer;
use crate::harness::skip::skip;
use crate::harness::{TestEnv, run};

use super::{CANARY, SourceTest, T, access, commit, full_message, git, notices_of, write};

#[test]
fn a_local_repository_is_found_from_anywhere_inside_it_and_read_in_place() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    git(&repo, &["remote", "add", "origin", &format!("https://me:{CANARY}@example.org/team/shop.git")]);
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["worktree", "add", "-q", "../linked", "--detach", "v1"]);
    git(&repo, &["clone", "-q", "--bare", ".", "../bare.git"]);
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "second"]);
    git(&repo, &["clone", "-q", "--depth", "1", &format!("file://{}", repo.display()), "../shallow"]);
    let second = git(&repo, &["rev-parse", "HEAD"]);
    let cases = [
        ("shop", &second, "shop", Some("shop")),
        ("shop/lib", &second, "shop", Some("shop")),
        ("shop/.git", &second, "shop", Some("shop")),
        ("linked/lib", &sha, "linked", Some("linked")),
        ("bare.git", &sha, "bare", None),
        ("shallow", &second, "shallow", Some("shallow")),
    ];
    for (path, sha, name, top) in cases {
        let location: Location = test.path(path).to_str().unwrap().parse().unwrap();
        let fetched = fetch(&location, "HEAD", &test.path("mirrors"), &access(&[]), &discard).unwrap();
        assert_eq!((&fetched.commit.sha, fetched.commit.name.as_str()), (sha, name), "{path}");
        let top = top.map(|top| fs::canonicalize(test.path(top)).unwrap());
        assert_eq!(working_tree_position(&location).unwrap().map(|position| position.top), top, "{path}");
        assert_eq!(test.tree(&fetched, &format!("out-{}", path.replace('/', "-"))).len(), 4);
        let origin = matches!(path, "shop" | "shop/lib" | "shop/.git" | "linked/lib")
            .then_some("https://example.org/team/shop.git");
        assert_eq!(fetched.commit.origin.map(|origin| origin.to_string()).as_deref(), origin, "{path}");
    }
    let url = format!("file://{}", repo.display());
    for rev in ["main", "v1", "refs/tags/v1", &sha[..10], &sha] {
        let wanted = if rev == "main" { &second } else { &sha };
        assert_eq!(&test.fetch(&url, rev).unwrap().commit.sha, wanted, "{rev}");
    }
    assert!(!test.path("mirrors").exists());
}

/// A commit can hold the files of a bare repository, with an `origin` that would get the caller's login.
#[test]
fn a_bare_repository_that_a_commit_holds_is_a_directory_of_that_commit() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let inner = test.repo("inner");
    git(&inner, &["commit", "-q", "--allow-empty", "-m", "theirs"]);
    git(&inner, &["clone", "-q", "--bare", ".", repo.join("services/cart").to_str().unwrap()]);
    let location: Location = repo.join("services/cart").to_str().unwrap().parse().unwrap();
    let sha = |location: &Location| {
        fetch(location, "HEAD", &test.path("mirrors"), &access(&[]), &discard).unwrap().commit.sha
    };
    assert_eq!(sha(&location), git(&inner, &["rev-parse", "HEAD"]), "one that is in no commit is the caller's own");
    write(&repo, "services/cart/refs/keep", "");
    write(&repo, "services/cart/objects/info/keep", "");
    let outer = commit(&repo, "with a repository in it");
    assert_eq!(git(&repo, &["ls-files", "services/cart/HEAD"]), "services/cart/HEAD");
    assert_eq!(sha(&location), outer);
    let position = working_tree_position(&location).unwrap().unwrap();
    assert_eq!((position.top, position.dirs[0].as_str()), (repo.canonicalize().unwrap(), "services/cart"));
}

#[test]
fn a_local_repository_is_read_without_certificates() {
    let test = crate::harness::TestEnv::new();
    let app = test.app("shell");
    let pipe = test.path("pipe"); // whoever reads it waits for somebody who writes
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let phial = test.phial(["explain", "--source", app.source()]);
    let mut patient = Command::new("timeout");
    patient.arg("60").arg(phial.get_program()).args(phial.get_args()).current_dir(test.dir());
    patient
        .env_clear()
        .envs(phial.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("SSL_CERT_FILE", &pipe);
    let output = crate::harness::run(patient).failed(3);
    assert!(output.contains("no build of"), "{output}");
}

#[test]
fn a_dirty_working_tree_is_built_from_its_commit_with_a_notice() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let location: Location = repo.to_str().unwrap().parse().unwrap();
    let resolve = |rev: &str| {
        let mut dirty = false;
        let output = notices_of(|watch| {
            let fetched = fetch(&location, rev, &test.path("mirrors"), &access(&[]), watch).unwrap();
            assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
            dirty = fetched.report_changes(&|_| true, watch);
        });
        (dirty, output)
    };
    assert_eq!(resolve("HEAD"), (false, String::new()));
    write(&repo, "new.ex", "new\n");
    let (dirty, output) = resolve("HEAD");
    assert!(!dirty && output.contains("0 changed, 1 untracked, such as `new.ex`"), "{output}");
    write(&repo, "lib/a.ex", "changed\n");
    let (dirty, output) = resolve("main");
    assert!(dirty && output.contains("1 changed, 1 untracked, such as `lib/a.ex`"), "{output}");
    git(&repo, &["add", "-A"]);
    assert!(resolve("HEAD").0);
    git(&repo, &["commit", "-q", "-m", "second"]);
    assert_eq!(resolve("v1"), (false, String::new()));
}

#[test]
fn a_partial_clone_is_read_as_far_as_its_objects_go() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    write(&repo, "lib/a.ex", "2\n");
    commit(&repo, "second");
    git(&repo, &["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", repo.display());
    git(test.dir.path(), &["clone", "-q", "--filter=blob:none", &url, "partial"]);
    let partial = test.path("partial").to_str().unwrap().to_owned();
    let tree = test.tree(&test.fetch(&partial, "HEAD").unwrap(), "tree");
    assert_eq!(tree["lib/a.ex"], format!("644 {T} 2\\n"));
    let old = test.fetch(&partial, "v1").unwrap();
    let error = checkout(&old, &test.path("old"), T).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(error.hint().unwrap().contains("partial clone"), "{}", full_message(&error));
}

#[test]
fn a_repository_of_another_user_is_read() {
    if rustix::process::geteuid().as_raw() != 0 {
        skip!("needs root, who alone can give a repository to another user");
    }
    let test = SourceTest::new();
    let repo = test.repo("shop");
    for entry in walkdir::WalkDir::new(&repo).into_iter().flatten() {
        std::os::unix::fs::lchown(entry.path(), Some(65534), Some(65534)).unwrap();
    }
    let fetched = test.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    assert_eq!(test.tree(&fetched, "tree").len(), 4);
    assert!(!fetched.report_changes(&|_| true, &discard));
}

/// git itself waits for ever for each of these.
#[test]
fn a_fifo_in_a_repository_holds_nothing_up() {
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let cases = [
        (".git", None), // what is above the repository decides
        (".gitignore", Some(0)),
        (".gitattributes", Some(0)),
        (".git/info/exclude", Some(0)),
        (".git/config", Some(3)),
        ("included", Some(3)),
        ("sub/.gitignore", Some(0)),
    ];
    std::thread::scope(|scope| {
        for (name, code) in cases {
            let base = &base;
            scope.spawn(move || {
                let env = TestEnv::with_empty_cache();
                let repo = env.shell_app();
                let path = repo.dir().join(name);
                if name == "included" {
                    repo.git(["config", "include.path", "../included"]);
                }
                match name {
                    ".git" => std::fs::rename(&path, env.dir().join("away")).expect("moved"),
                    ".git/info/exclude" | ".git/config" => drop(std::fs::remove_file(&path)),
                    "sub/.gitignore" => repo.write("sub/other", ""),
                    _ => {}
                }
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::RWXU, 0).expect("a FIFO");
                let to = format!("oci:{}", env.path("out"));
                let ended = run(env.phial(["build", repo.source(), "--base", base, "--to", &to]));
                assert_eq!(ended.code, code.or(ended.code), "{name}: {}", ended.stderr);
                assert!(matches!(ended.code, Some(0 | 2 | 3)), "{name}: {:?} {}", ended.code, ended.stderr);
            });
        }
    });
}

/// libgit2 opens these before anything else: no time limit and no signal would end that.
#[test]
fn a_fifo_in_the_place_of_an_object_or_a_reference_is_refused_by_name() {
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let names = [
        "HEAD",
        "config",
        "packed-refs",
        "refs/heads/main",
        "objects/COMMIT",
        "objects/TREE",
        "objects/pack/pack-1.idx",
        "objects/info/alternates",
        "other/COMMIT",
    ];
    std::thread::scope(|scope| {
        for name in names {
            let base = &base;
            scope.spawn(move || {
                let env = TestEnv::with_empty_cache();
                let repo = env.shell_app();
                let git_dir = repo.dir().join(".git");
                let object = |rev: &str| {
                    let id = repo.git(["rev-parse", rev]);
                    format!("{}/{}", &id[..2], &id[2..])
                };
                let name = name.replace("COMMIT", &object("HEAD")).replace("TREE", &object("HEAD^{tree}"));
                let path = git_dir.join(&name);
                if name.starts_with("other/") {
                    fs::rename(git_dir.join("objects"), git_dir.join("other")).unwrap();
                    fs::create_dir_all(git_dir.join("objects/info")).unwrap();
                    fs::write(git_dir.join("objects/info/alternates"), "../other\n").unwrap();
                }
                let _ = fs::remove_file(&path);
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
                    .unwrap();
                let to = format!("oci:{}", env.path("out"));
                for args in [
                    vec!["build", repo.source(), "--base", base, "--to", &to],
                    vec!["explain", "--source", repo.source()],
                ] {
                    let phial = env.phial(&args);
                    let mut patient = Command::new("timeout");
                    patient.arg("60").arg(phial.get_program()).args(phial.get_args()).current_dir(env.dir());
                    patient.env_clear().envs(phial.get_envs().filter_map(|(name, value)| Some((name, value?))));
                    let stderr = run(patient).failed(3);
                    let file = name.strip_prefix("other/").unwrap_or(&name);
                    let expected = format!("{file}` in a git repository is not a file but a FIFO");
                    assert!(stderr.contains(&expected), "{args:?} {name}: {stderr}");
                }
            });
        }
    });
}

#[test]
fn a_commit_or_a_tag_of_many_megabytes_is_refused_before_it_is_read() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let write_object = |kind: &str, head: &str| {
        fs::write(test.path("object"), format!("{head}{}\n", "x".repeat(20 << 20))).unwrap();
        let file = test.path("object");
        git(&repo, &["hash-object", "-t", kind, "-w", file.to_str().unwrap()])
    };
    let head = git(&repo, &["rev-parse", "HEAD"]);
    let commit = write_object("commit", &format!("{}\n", git(&repo, &["cat-file", "commit", "HEAD"])));
    let tag = write_object("tag", &format!("object {head}\ntype commit\ntag t\ntagger A <a@b> 1 +0000\n\n"));
    git(&repo, &["update-ref", "refs/tags/t", &tag]);
    git(&repo, &["update-ref", "refs/heads/large", &commit]);
    let local = repo.to_str().unwrap().to_owned();
    for rev in [&commit, &tag, "t", "large", &commit[..12]] {
        let error = test.fetch(&local, rev).unwrap_err();
        let text = full_message(&error);
        assert!(text.contains("is a commit or tag of more than 16 MiB, which is not read"), "{rev}: {text}");
        assert_eq!(error.exit_kind().code(), 3);
    }
    assert_eq!(test.fetch(&local, "HEAD").unwrap().commit.sha, head);
}

/// The programs that git runs for what Phial asks of a repository, or for a little more.
const PROGRAMS: [&str; 16] = [
    "core.sshCommand",
    "core.gitProxy",
    "core.pager",
    "core.editor",
    "core.askPass",
    "core.fsmonitor",
    "core.alternateRefsCommand",
    "diff.external",
    "diff.mine.command",
    "diff.mine.textconv",
    "filter.mine.clean",
    "filter.mine.smudge",
    "filter.mine.process",
    "gpg.program",
    "uploadpack.packObjectsHook",
    "remote.origin.uploadpack",
];
const HOOKS: [&str; 4] = ["post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"];

#[test]
fn nothing_that_a_repository_configures_is_run_or_shown() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    repo.write(".gitattributes", "* filter=mine diff=mine\n");
    repo.commit("Attributes");
    let (served, ran) = (env.path("served.git"), env.path("ran"));
    repo.git(["clone", "-q", "--bare", ".", &served]);
    let text = format!("#!/bin/sh\necho \"$0 $*\" >>{ran}\ncat\n");
    repo.script(".git/program", &text);
    for hook in HOOKS {
        repo.script(&format!(".git/hooks/{hook}"), &text);
    }
    let program = repo.dir().join(".git/program").display().to_string();
    let (hooks, helper) = (repo.dir().join(".git/hooks").display().to_string(), format!("!{program}"));
    let origin = format!("http://me:{CANARY}@127.0.0.1:1/team/app.git");
    let own = [("core.hooksPath", hooks.as_str()), ("credential.helper", &helper), ("remote.origin.url", &origin)];
    let to_others = [("http.proxy", "http://127.0.0.1:1"), ("url.http://127.0.0.1:1/.insteadOf", "http://")];
    let programs = PROGRAMS.iter().map(|key| (*key, program.as_str()));
    for (key, value) in programs.chain(own).chain(to_others) {
        repo.git(["config", key, value]);
    }
    repo.write("VERSION", "1.0\n"); // of another time, so that it is compared
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let to = format!("oci:{}", env.path("out"));
    let (open, private) = (GitServer::start(env.dir()), GitServer::start_private(env.dir(), "Basic none"));
    let [there, closed] = [&open, &private].map(|server| format!("{}/served.git", server.url));
    let here = format!("file://{}", repo.source());
    let mut shown = String::new();
    for (args, code) in [
        (vec!["build", ".", "--base", &base, "--to", &to, "--json"], 0),
        (vec!["build", &here, "--base", &base, "--to", &to], 0),
        (vec!["verify", &to, "--source", ".", "--base", &base], 0),
        (vec!["explain", "--source", "."], 0),
        (vec!["build", &there, "--base", &base, "--to", &to], 0),
        (vec!["build", &closed, "--base", &base, "--to", &to], 5),
        (vec!["cache", "ls", "--json"], 0),
        (vec!["lock", ".", "--base", &base], 0),
    ] {
        let mut command = env.phial(&args);
        command.current_dir(repo.dir());
        let output = run(command);
        assert_eq!(output.code, Some(code), "{args:?}: {}", output.stderr);
        assert!(!fs::exists(&ran).unwrap(), "{args:?} ran {}", fs::read_to_string(&ran).unwrap());
        shown.extend([output.stdout, output.stderr]);
    }
    assert!(!shown.contains(CANARY), "{shown}");
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", CANARY]).arg(env.cache()).arg(env.path("out"));
    assert_eq!(run(grep).stdout, "");
}

#[test]
fn worktrees_of_bare_repositories_and_with_relative_paths_are_read() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    fs::create_dir(test.path("project")).unwrap();
    for (bare, from, tree) in [("bare.git", "bare.git", "../of-bare"), ("project/.bare", "project", "main")] {
        git(test.dir.path(), &["clone", "-q", "--bare", "shop", bare]);
        fs::write(test.path("project/.git"), "gitdir: ./.bare\n").unwrap();
        git(&test.path(from), &["worktree", "add", "-q", tree, "main"]);
    }
    git(&repo, &["worktree", "add", "-q", "--detach", "../linked"]);
    git(&repo, &["config", "core.repositoryFormatVersion", "1"]);
    // As `git worktree add --relative-paths` leaves it (git 2.48).
    fs::write(test.path("linked/.git"), "gitdir: ../shop/.git/worktrees/linked\n").unwrap();
    fs::write(repo.join(".git/worktrees/linked/gitdir"), "../../../../linked/.git\n").unwrap();
    let config = fs::read_to_string(repo.join(".git/config")).unwrap();
    fs::write(repo.join(".git/config"), config + "[extensions]\n\trelativeWorktrees = true\n").unwrap();
    for (path, top) in [
        ("of-bare", "of-bare"),
        ("of-bare/lib", "of-bare"),
        ("project/main/lib", "project/main"),
        ("linked/lib", "linked"),
    ] {
        let location: Location = test.path(path).to_str().unwrap().parse().unwrap();
        let output = notices_of(|watch| {
            let fetched = fetch(&location, "HEAD", &test.path("mirrors"), &access(&[]), watch).unwrap();
            assert_eq!(fetched.commit.sha, sha, "{path}");
            assert!(!fetched.report_changes(&|_| true, watch), "{path}");
        });
        assert_eq!(output, "", "{path}");
        let found = working_tree_position(&location).unwrap().map(|position| position.top);
        assert_eq!(found, Some(fs::canonicalize(test.path(top)).unwrap()), "{path}");
    }
}
