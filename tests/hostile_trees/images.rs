//! What an image brings, and a commit with a large file.

use std::fs;
use std::process::Command;

use super::{Canary, bounded, check, isolations, phial_in, use_image, used};
use crate::diff::handmade_images::{Entry, image, layer, plain, tar};
use crate::harness::busybox::busybox_base;
use crate::harness::{TestEnv, run};
use crate::odd_layers::busybox;

/// Device nodes, FIFOs and links of an image at the paths that Phial looks at: they are unpacked as the image has them, as far as this
/// user may, and none is opened.
#[test]
fn nothing_that_an_image_has_leads_to_a_device_or_a_file_of_the_host() {
    let env = TestEnv::with_empty_cache();
    let canary = Canary::new(&env);
    let (small, repo) = (env.path("small.tar"), env.shell_app());
    for (kind, entry) in
        [("device", tar::EntryType::Char), ("FIFO", tar::EntryType::Fifo), ("link", tar::EntryType::Symlink)]
    {
        let mut archive = tar::Builder::new(fs::File::create(&small).expect("a file"));
        let mut add = |name: &str, entry: tar::EntryType, body: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).expect("a name");
            header.set_entry_type(entry);
            header.set_mode(0o755);
            header.set_size(body.len() as u64);
            if entry == tar::EntryType::Char {
                header.set_device_major(1).expect("a number");
                header.set_device_minor(5).expect("a number"); // /dev/zero
            }
            if entry == tar::EntryType::Symlink {
                header.set_link_name(format!("{}/{name}", canary.path())).expect("a name");
            }
            header.set_cksum();
            archive.append(&header, body).expect("written");
        };
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok());
        let busybox = busybox.expect("busybox-static");
        add("bin/sh", tar::EntryType::Regular, &busybox);
        add("bin/true", tar::EntryType::Regular, &busybox);
        for path in ["app/phial.toml", "app/mix.exs", "app/mix.lock", "etc/passwd", "etc/group"] {
            add(path, entry, &[]);
        }
        archive.finish().expect("written");
        let image = format!("oci:{}", env.path(&format!("image-{kind}")));
        run(env.phial(["base", "import", &small, "--to", &image])).ok();
        for isolation in isolations() {
            let case = format!("{isolation}: files of the image are each a {kind}");
            let artifacts = env.path("artifacts");
            use_image(&env, &canary, &used(&image, &artifacts), isolation, &case);
            let build = ["build", repo.source(), "--base", &image, "--to", "oci:built"];
            check(&canary, &bounded(phial_in(&env, isolation, &build), &case), &case);
        }
    }
}

/// Links of an image in place of the directories that a sandbox fills: they lead to the same path in the root. In a chroot, where
/// files are copied below `/run`, a link in the way is refused.
#[test]
fn links_of_an_image_in_place_of_directories_lead_nowhere() {
    let env = TestEnv::with_empty_cache();
    let (canary, repo) = (Canary::new(&env), env.shell_app());
    for link in ["run", "tmp", "etc"] {
        let away = format!("{}/{link}", canary.path());
        let above = format!("../../../../../../../../../../../..{away}");
        for (kind, target) in [("away", away.as_str()), ("above", &above), ("parent", "..")] {
            let name = format!("{link}-{kind}");
            let base = image(&env, &name, &[busybox(), layer("link", &tar(&[Entry::link(link, target)]))], &plain());
            for isolation in isolations() {
                let case = format!("{isolation}: `{link}` of the image is a link to {kind}");
                let script = "echo x >/run/x; echo x >/tmp/x; echo x >/etc/x; true";
                let ran = bounded(phial_in(&env, isolation, &["run", &base, "--", "sh", "-c", script]), &case);
                check(&canary, &ran, &case);
                let build = ["build", repo.source(), "--base", &base, "--to", "oci:built", "--no-cache"];
                let built = bounded(phial_in(&env, isolation, &build), &case);
                check(&canary, &built, &case);
                let copies = link == "run" && ["chroot", "plain"].contains(isolation);
                let expected = (Some(0), Some(if copies { 6 } else { 0 }));
                assert_eq!((ran.code, built.code), expected, "{case}\n{}{}", ran.stderr, built.stderr);
            }
        }
    }
}

/// A commit's file is read by libgit2 as a whole, once.
#[test]
fn a_large_file_of_a_commit_is_in_memory_once() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    fs::write(repo.dir().join("large"), vec![b'x'; 160 << 20]).expect("a file");
    repo.commit("A large file");
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let built = bounded(env.phial(["build", repo.source(), "--base", &base, "--to", &to]), "a large file");
    assert_eq!(built.code, Some(0), "{}", built.stderr);
}

/// libgit2 compares whole trees: nothing may do that before their entries are counted.
#[test]
fn a_checked_out_commit_of_millions_of_files_takes_no_memory() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let bomb = "set -eu
        tree=$(printf '100644 blob %s\\tf\\n' \"$(git rev-parse HEAD:VERSION)\" | git mktree)
        for level in 1 2 3 4 5 6 7; do
            tree=$(for n in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\\t%s\\n' \"$tree\" $n; done | git mktree)
        done
        { git ls-tree HEAD; printf '040000 tree %s\\tbomb\\n' \"$tree\"; } | git mktree";
    let mut sh = Command::new("sh");
    sh.args(["-c", bomb]).current_dir(repo.dir());
    let commit = repo.git(["commit-tree", "-m", "Bomb", &run(sh).ok()]);
    repo.git(["update-ref", "refs/heads/main", &commit]);
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let built = bounded(env.phial(["build", repo.source(), "--base", &base, "--to", &to]), "a bomb at HEAD");
    assert_eq!(built.code, Some(3), "{}", built.stderr);
    assert!(built.stderr.contains("too deep or too large"), "{}", built.stderr);
}
