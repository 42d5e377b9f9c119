//! Files of Git LFS: from the store of the clone that is built, checked, and never a pointer in silence. git-lfs is not needed.

use std::fs;
use std::path::Path;

use phial::error::UserError as _;
use phial::source::{SourceError, check_lfs, checkout, list};
use phial_layers::Digest;

use super::{SourceTest, T, commit, full_message, git, write};
use crate::harness::busybox::busybox_base;
use crate::harness::git_http::GitServer;
use crate::harness::{TestEnv, run};

const CONTENT: &str = "a picture\n";

fn pointer(content: &str) -> String {
    let oid = Digest::of(content.as_bytes());
    format!("version https://git-lfs.github.com/spec/v1\noid {oid}\nsize {}\n", content.len())
}

/// Puts the object of `content` where git-lfs has it in a git directory, with these bytes.
fn store(git_dir: &Path, content: &str, bytes: &str) {
    let oid = Digest::of(content.as_bytes());
    let hex = oid.hex();
    write(git_dir, &format!("lfs/objects/{}/{}/{hex}", &hex[..2], &hex[2..4]), bytes);
}

fn repo_of(test: &SourceTest) -> std::path::PathBuf {
    let repo = test.repo("shop");
    write(&repo, ".gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n");
    write(&repo, "priv/logo.png", &pointer(CONTENT));
    write(&repo, "priv/plain.png", "not a pointer\n");
    write(&repo, "priv/pointer.txt", &pointer(CONTENT));
    commit(&repo, "pictures");
    repo
}

/// What a build does first, and its checkout.
fn build(test: &SourceTest, location: &str, dest: &str) -> Result<String, SourceError> {
    let fetched = test.fetch(location, "HEAD")?;
    check_lfs(&fetched, &list(&fetched)?)?;
    checkout(&fetched, &test.path(dest), T)?;
    for name in ["plain.png", "pointer.txt"] {
        let as_git = fs::read(test.path("shop/priv").join(name)).expect("there");
        assert_eq!(fs::read(test.path(dest).join("priv").join(name)).expect("there"), as_git, "{name}");
    }
    Ok(fs::read_to_string(test.path(dest).join("priv/logo.png")).expect("there"))
}

#[test]
fn a_file_is_its_object_from_the_clone_or_refused_by_name() {
    let test = SourceTest::new();
    let repo = repo_of(&test);
    git(&repo, &["worktree", "add", "-q", "--detach", "../linked"]);
    let location = repo.to_str().unwrap();
    let refused = |location: &str, dest: &str| {
        let error = build(&test, location, dest).unwrap_err();
        assert_eq!(error.exit_kind().code(), 3, "{}", full_message(&error));
        assert!(error.to_string().ends_with("not on this machine: `priv/logo.png`"), "{}", full_message(&error));
        assert!(error.hint().unwrap().contains("`git lfs fetch`"), "{}", full_message(&error));
    };
    refused(location, "none");
    // One of another size, and one of the same size with other bytes.
    store(&repo.join(".git"), CONTENT, "short\n");
    refused(location, "short");
    store(&repo.join(".git"), CONTENT, "A picture\n");
    refused(location, "other");
    store(&repo.join(".git"), CONTENT, CONTENT);
    assert_eq!(build(&test, location, "good").unwrap(), CONTENT);
    assert_eq!(build(&test, test.path("linked").to_str().unwrap(), "linked-out").unwrap(), CONTENT);
    // A server is asked for none, and a mirror has none.
    let server = GitServer::start(test.dir.path());
    refused(&format!("{}/shop", server.url), "there");
    // What cannot be read as a pointer is no content either.
    let extended = pointer(CONTENT).replace("\noid", "\next-0-foo sha256:00\noid");
    for bad in [extended.as_str(), "version https://git-lfs.github.com/spec/v1\noid sha256:../../x\nsize 1\n"] {
        write(&repo, "priv/logo.png", bad);
        commit(&repo, "bad");
        refused(location, "bad");
    }
}

#[test]
fn an_image_has_objects_or_by_the_settings_pointers_and_each_build_says_so() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap_or_default();
    repo.write(".gitattributes", "*.png filter=lfs\n");
    repo.write("logo.png", pointer(CONTENT));
    repo.commit("a picture");
    let build = || run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out"]));
    let logo = || run(env.phial(["run", "oci:out", "--", "cat", "/app/logo.png"])).ok();
    let stderr = build().failed(3);
    assert!(stderr.contains("not on this machine: `logo.png`") && stderr.contains("`lfs = false`"), "{stderr}");
    assert!(!env.dir().join("out").exists());
    for _ in 0..2 {
        repo.write("phial.toml", format!("{settings}\n[source]\nlfs = false\n"));
        repo.commit("pointers");
        for _ in 0..2 {
            let built = build();
            assert!(built.code == Some(0) && built.stderr.contains("`logo.png` (filter=lfs)"), "{}", built.stderr);
            assert_eq!(logo(), pointer(CONTENT).trim_end());
        }
        repo.write("phial.toml", &settings);
        repo.commit("objects");
        store(&repo.dir().join(".git"), CONTENT, CONTENT);
        let built = build();
        assert!(built.code == Some(0) && !built.stderr.contains("filter=lfs"), "{}", built.stderr);
        assert_eq!(logo(), CONTENT.trim_end());
    }
}
