//! The cache: a folder that cannot be one, and what is damaged in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use insta::assert_snapshot;

use super::base_images::damage;
use super::{Scene, digest, good, listing, run};
use crate::harness::{Output, isolations, through_program};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[track_caller]
fn error_with(scene: &Scene, cache: &str) -> String {
    let mut build = scene.build([]);
    build.env("PHIAL_CACHE_DIR", cache);
    scene.refused(6, build)
}

#[test]
fn a_folder_that_cannot_hold_a_cache_is_refused_with_a_remedy() {
    let scene = Scene::new();
    fs::write(scene.env.path("file"), "in the way").unwrap();
    assert_snapshot!(error_with(&scene, &scene.env.path("file")), @r"
    error: the cache directory `[DIR]/file` is not a directory
    hint: set `PHIAL_CACHE_DIR` to a directory of your own
    ");
    assert_snapshot!(error_with(&scene, &scene.env.path("file/cache")), @r"
    error: cannot create `[DIR]/file/cache`: Not a directory (os error 20)
    hint: set `PHIAL_CACHE_DIR` to a writable directory
    ");
    assert_snapshot!(error_with(&scene, "/proc/phial"), @r"
    error: cannot create `/proc/phial`: No such file or directory (os error 2)
    hint: set `PHIAL_CACHE_DIR` to a writable directory
    ");
}

#[test]
fn a_cache_that_others_may_write_or_own_is_refused_and_nothing_is_put_into_it() {
    let scene = Scene::new();
    let open = scene.env.dir().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert_snapshot!(error_with(&scene, &scene.env.path("open")), @r"
    error: the cache directory `[DIR]/open` can be written by other users
    hint: set `PHIAL_CACHE_DIR` to a directory of your own
    ");
    assert!(listing(&open).is_empty(), "{:?}", listing(&open));

    let others = if is_root() {
        std::os::unix::fs::chown(&open, Some(65534), Some(65534)).unwrap();
        scene.env.path("open")
    } else {
        "/usr".to_owned()
    };
    let output = error_with(&scene, &others);
    assert!(output.contains("belongs to another user"), "{output}");
    assert!(listing(&open).is_empty(), "{:?}", listing(&open));
}

/// The kept blobs, the largest first: the base's layer, then ours.
fn blobs(scene: &Scene) -> Vec<PathBuf> {
    let all = fs::read_dir(scene.env.cache().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    all
}

fn build_to(scene: &Scene, name: &str) -> Output {
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    run(scene.build_on(&base, &format!("oci:{}", scene.env.path(name)), []))
}

#[test]
fn a_damaged_layer_of_the_base_in_the_cache_is_moved_away_and_fetched_again() {
    let scene = Scene::new();
    scene.sound();
    damage(&blobs(&scene)[0]);
    let mut remove = std::process::Command::new("rm");
    remove.arg("-rf").arg(scene.env.cache().join("trees")).arg(scene.env.cache().join("results"));
    run(remove).ok();
    assert_eq!(digest(&build_to(&scene, "again").ok()), good());
    assert_eq!(fs::read_dir(scene.env.cache().join("bad")).unwrap().count(), 1);
    scene.tidy();
}

#[test]
fn a_damaged_layer_of_ours_in_the_cache_is_moved_away_and_built_again() {
    let scene = Scene::new();
    scene.sound();
    for blob in &blobs(&scene)[1..] {
        damage(blob);
    }
    let output = scene.error(build_to(&scene, "again"), 6);
    assert_snapshot!(super::settings::without_digest(&output), @r"
    error: the cached layer `sha256:[HEX]` is gone or damaged
    hint: run the command again to rebuild it
    ");
    assert!(!scene.env.dir().join("again").exists());
    let ended = (0..3).map(|_| build_to(&scene, "again")).find(|ran| ran.code == Some(0));
    assert_eq!(digest(&ended.expect("each run finds one of three").ok()), good());
    scene.tidy();
}

#[test]
fn whatever_is_truncated_or_missing_in_the_cache_is_built_again() {
    let scene = Scene::new();
    scene.sound();
    let entries = |name: &str| {
        let read = fs::read_dir(scene.env.cache().join(name)).unwrap();
        read.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    for path in entries("results") {
        fs::write(path, "{").unwrap();
    }
    assert_eq!(digest(&build_to(&scene, "one").ok()), good());
    for path in entries("trees") {
        fs::write(path.join("records.json"), "").unwrap();
    }
    assert_eq!(digest(&run(scene.build(["--no-cache"])).ok()), good());
    for path in blobs(&scene) {
        fs::write(path, "").unwrap();
    }
    assert_eq!(digest(&build_to(&scene, "two").ok()), good());
    scene.tidy();
}

/// What other programs do to a cache directory that they carry, restore or clean, below `trees/`.
const CHANGES: [(&str, &str); 8] = [
    ("copied without special files", "cp -a trees copy; find copy -type c -delete; rm -rf trees; mv copy trees"),
    ("restored from an archive", "tar cf t trees; rm -rf trees; tar xf t; rm t"),
    ("a deleted file", "find trees -path '*/app/vendor/part' -delete"),
    ("a deleted whiteout", "find trees -type c -delete"),
    ("an appended file", "for f in $(find trees -path '*/app/vendor/part'); do echo more >>$f; done"),
    (
        "a file of the same size and time",
        "for f in $(find trees -path '*/app/vendor/part'); do touch -r $f t; sed -i s/1/2/ $f; touch -r t $f; done",
    ),
    ("an added file", "for d in $(find trees -path '*/app/vendor' -type d); do echo x >$d/new; done"),
    ("another mode", "find trees -path '*/app/vendor/part' -exec chmod 755 {} +"),
];

#[test]
fn a_tree_that_something_changed_is_made_again() {
    let script = "#!/bin/sh\nset -eu\ncase $1 in\n\
        deps) mkdir -p vendor; cat VERSION >vendor/part; rm /etc/passwd ;;\n\
        build) mkdir -p out; cat vendor/* >out/all; busybox stat -c '%n %a %s' vendor/* /etc/* >out/list ;;\nesac\n";
    let fresh = Scene::with_script(script);
    fresh.repo.write("more", "1");
    fresh.repo.commit("The third commit");
    let expected = build_to(&fresh, "fresh").ok();
    for (what, commands) in CHANGES {
        let scene = Scene::with_script(script);
        run(scene.build([])).ok();
        let mut change = std::process::Command::new("sh");
        change.args(["-euc", commands]).current_dir(scene.env.cache());
        run(change).ok();
        scene.repo.write("more", "1");
        scene.repo.commit("The third commit");
        let built = build_to(&scene, "again");
        assert_eq!(digest(&built.ok()), digest(&expected), "{what}");
    }
}

/// What a cache that a CI restored from an archive, or that lies in a clone, has in the place of a file or directory. `$P` is its
/// path in the cache, `$C` one of the canary.
const REPLACEMENTS: [(&str, &str); 5] = [
    ("link to a directory", "rm -rf $P; ln -s $C $P"),
    ("link to a file", "rm -rf $P; ln -s $C/keep $P"),
    ("link to nothing", "rm -rf $P; ln -s $C/new $P"),
    ("link to /dev/zero", "rm -rf $P; ln -s /dev/zero $P"),
    ("FIFO", "rm -rf $P; mkfifo $P"),
];

#[test]
fn a_link_or_a_fifo_in_the_cache_leads_nowhere() {
    let scene = Scene::new();
    scene.sound();
    let (saved, canary) = (scene.env.path("saved"), scene.env.path("canary"));
    let shell = |text: &str| {
        let mut sh = std::process::Command::new("sh");
        sh.args(["-euc", text]).env("C", &canary).current_dir(scene.env.cache());
        run(sh).ok()
    };
    shell("mkdir -p $C/mine; echo keep | tee $C/keep $C/mine.lock $C/mine/keep $C/objects");
    let state = "cd $C; find . | sort; cat keep mine.lock mine/keep objects";
    let before = shell(state);
    shell(&format!("cp -a . {saved}"));
    let paths = shell(
        "echo scratch/x scratch/x.lock locks/size trees/x; find . -mindepth 1 -maxdepth 2 -printf '%P ' | sort; \
         find trees -mindepth 2 -maxdepth 2 -name records.json -printf '%p '",
    );
    let mut nth = 0;
    for path in paths.split_whitespace() {
        for (kind, commands) in REPLACEMENTS {
            nth += 1;
            // Each path with two of them; a directory, whose link could take most, with all.
            if path.contains('/') && nth % 5 > 1 {
                continue;
            }
            shell(&format!("find . -mindepth 1 -delete; cp -a {saved}/. .; P={path}; {commands}"));
            for arguments in [&["cache", "ls"][..], &["cache", "prune", "--limit", "1"]] {
                let case = format!("`{path}` is a {kind}: `phial {}`", arguments.join(" "));
                let ran = run(through_program(&["timeout", "60"], &scene.env.phial(arguments)));
                assert!(matches!(ran.code, Some(0 | 6)), "{case}: {:?}\n{}", ran.code, ran.stderr);
                assert_eq!(shell(state), before, "{case}");
            }
            shell(&format!("find . -mindepth 1 -delete; cp -a {saved}/. .; P={path}; {commands}"));
            let case = format!("`{path}` is a {kind}: `phial build`");
            let built = run(through_program(&["timeout", "60"], &scene.build([])));
            match built.code {
                Some(0) => assert_eq!(digest(&built.ok()), good(), "{case}"),
                code => assert_eq!(code, Some(6), "{case}\n{}", built.stderr),
            }
            assert_eq!(shell(state), before, "{case}");
        }
    }
    assert!(nth > 150, "{nth} cases");
}

#[test]
fn the_cache_may_be_reached_over_links() {
    let scene = Scene::new();
    let (real, link) = (scene.env.path("disk/cache"), scene.env.path("link"));
    fs::create_dir_all(&real).unwrap();
    std::os::unix::fs::symlink("disk/cache", &link).unwrap();
    for directory in [link.clone(), format!("{link}/../cache"), scene.env.path("link/below")] {
        for _ in 0..2 {
            let mut build = scene.build([]);
            build.env("PHIAL_CACHE_DIR", &directory);
            assert_eq!(digest(&run(build).ok()), good(), "{directory}");
            let mut list = scene.env.phial(["cache", "ls"]);
            list.env("PHIAL_CACHE_DIR", &directory);
            assert!(run(list).ok().contains("tree"), "{directory}");
        }
    }
    assert!(fs::metadata(real).unwrap().is_dir() && fs::symlink_metadata(link).unwrap().is_symlink());
}

#[test]
fn directories_may_have_odd_names() {
    let scene = Scene::new();
    let odd = scene.env.path("a b@c%2Fd,e:f");
    fs::create_dir(&odd).unwrap();
    let plain = crate::harness::busybox::busybox_base().display().to_string();
    let (app, base) = (format!("{odd}/app"), format!("oci:{plain}"));
    for (from, to) in [(scene.repo.source(), app.clone()), (plain.as_str(), format!("{odd}/base"))] {
        let mut copy = std::process::Command::new("cp");
        copy.args(["-R", from, &to]);
        run(copy).ok();
    }
    let phial = |args: &[&str]| {
        let mut command = scene.env.phial(args);
        command.env("PHIAL_CACHE_DIR", format!("{odd}/cache"));
        run(command)
    };
    for isolation in isolations() {
        let (to, quiet) = (format!("oci:{odd}/{isolation}"), ["--isolation", isolation, "--progress", "quiet"]);
        let build = [&["build", &app, "--base", &base, "--to", &to, "--no-cache"], &quiet[..]].concat();
        assert_eq!(digest(&phial(&build).ok()), good(), "{isolation}");
        assert_eq!(phial(&[&["run", &to], &quiet[..]].concat()).ok(), "prod of 1.0", "{isolation}");
    }
    assert_eq!(phial(&["run", &format!("oci:{odd}/base"), "--", "echo", "x"]).ok(), "x");
}
