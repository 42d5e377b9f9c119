//! What Phial writes, read by others: skopeo, umoci, buildah, podman and crun.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::prebuilt::{elixir_base, service_images};
use crate::harness::skip::skip;
use crate::harness::{TestEnv, User, run, search_path, user_with_subids};

/// Everything in a root filesystem, a line each, but what a runtime puts there: kind, mode, links, time, name and target,
/// then a checksum of each file. Setuid and setgid are left out, since trees on disk have neither. The root and `/etc` are without a time: what is mounted in them changes it.
const LIST: &str = r"cd / && own='( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./run -o -path ./etc/hosts -o -path ./etc/resolv.conf ) -prune'
    { find . $own -o \( -path . -o -path ./etc \) -printf '%y %m %p\n' -o -type d -printf '%y %m %T@ %p\n' -o -printf '%y %m %n %T@ %p %l\n'
      find . $own -o -type f -print0 | xargs -0 cksum; } | sed -E 's/^([df]) [246]([0-7]{3}) /\1 \2 /' | LC_ALL=C sort";

fn elixir() -> String {
    format!("oci:{}", elixir_base().display())
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command).ok()
}

#[test]
fn skopeo_umoci_and_phial_run_see_the_same_image() {
    let env = TestEnv::new();
    // Hard links, links to nowhere, a name that is not UTF-8, changes of the base; over a small image of Debian, which has `find`.
    let repo = env.app("shell");
    let base = format!("oci:{}", service_images().join("redis").display());
    let image = format!("oci:{}:shell", env.path("images"));
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &image])).ok();
    tool("skopeo", &["--insecure-policy", "copy", "--quiet", &image, &format!("dir:{}", env.path("copy"))]);

    let bundle = env.path("bundle");
    tool("umoci", &["unpack", "--rootless", "--image", &format!("{}:shell", env.path("images")), &bundle]);
    let listed = run(env.phial(["run", "--user", "0", &image, "--", "sh", "-c", LIST])).ok();
    let mut outside = Command::new("sh");
    outside.arg("-c").arg(LIST.replace("cd /", "cd \"$0/rootfs\"")).arg(&bundle);
    let unpacked = run(outside).ok();
    let ours: BTreeSet<&str> = listed.lines().collect();
    let theirs: BTreeSet<&str> = unpacked.lines().collect();
    let (more, less): (Vec<_>, Vec<_>) = (ours.difference(&theirs).collect(), theirs.difference(&ours).collect());
    assert!(more.is_empty() && less.is_empty(), "phial run alone: {more:#?}\numoci alone: {less:#?}");
    for path in ["./app/out/prod/server.sh", "./usr/bin/", "./var/lib/dpkg/status", "./opt/shell-app/note-again"] {
        assert!(listed.contains(path), "`{path}` is not listed");
    }
}

#[test]
fn buildah_and_podman_import_the_image_and_run_it() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let (layout, docker) = (env.path("layout"), env.path("docker.tar"));
    let targets = [format!("oci:{layout}:v1"), format!("docker-archive:{docker}:v1")];
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &targets[0], "--to", &targets[1]])).ok();

    let (root, state) = (env.path("storage"), TestEnv::short_dir());
    let runroot = state.path().to_str().expect("UTF-8");
    let own = ["--root", &root, "--runroot", runroot, "--storage-driver", "vfs"];
    let ignore = ["--storage-opt", "vfs.ignore_chown_errors=true"];
    let with_storage = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(own).args(ignore).args(arguments).env("HOME", env.dir().join("home")).current_dir(env.dir());
        run(command).ok()
    };
    let buildah = |arguments: &[&str]| with_storage("buildah", arguments);
    let container = buildah(&["from", "--quiet", "oci:layout:v1"]); // a path in capitals is none for buildah
    let output = buildah(&["run", "--isolation", "chroot", &container, "--", "cat", "/app/out/prod/app"]);
    assert_eq!(output, "prod of 1.0");
    let id = buildah(&["inspect", "--format", "{{.FromImageID}}", &container]);

    with_storage("podman", &["load", "--quiet", "--input", &docker]);
    let images = buildah(&["images", "--quiet", "--no-trunc"]);
    assert!(images.contains(&id), "the archive for Docker is the same image: {images}, {id}");
}

#[test]
fn buildah_runs_an_elixir_app_that_has_nothing_to_compile_for_an_ordinary_user() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let layout = env.path("images");
    run(env.phial(["build", repo.source(), "--base", &elixir(), "--to", &format!("oci:{layout}:hello")])).ok();
    let files = [(Path::new(&layout), "images")];
    let own = rustix::process::getuid().as_raw();
    let user = User::with(if own == 0 { user_with_subids() } else { own }, &files);
    // Gigabytes, which `/tmp` may not have.
    let storage = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let mut give = Command::new("chown");
    give.arg(user.uid.to_string()).arg(storage.path());
    run(give).ok();
    let buildah = |arguments: &[&str]| {
        let words = user.prefix();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("buildah").arg("--root").arg(storage.path());
        command.args(["--runroot", &user.path("state"), "--storage-driver", "vfs"]);
        command.args(["--storage-opt", "vfs.ignore_chown_errors=true"]).args(arguments);
        command.env_clear().env("PATH", search_path()).env("HOME", user.path("")).current_dir(user.path(""));
        run(command).ok()
    };
    let container = buildah(&["from", "--quiet", "oci:images:hello"]);
    let inside = |words: &[&str]| buildah(&[&["run", "--isolation", "chroot", &container, "--"], words].concat());
    let output = inside(&["mix", "run", "--no-start", "-e", "IO.puts(Mix.env())"]);
    assert_eq!(output, "prod", "in prod, and nothing is compiled");
    assert_eq!(inside(&["mix", "compile"]), "");
    for remove in ["rm", "rmi"] {
        buildah(&[remove, "--all"]); // files of ids that only the user's namespace has
    }
}

#[test]
fn crun_starts_apps_by_the_default_command_as_a_user_who_owns_nothing() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: the one id that a user maps would own everything");
    }
    let env = TestEnv::new();
    // Writable, the permissions of the files alone keep the user from writing.
    for (name, read_only) in [("hello", true), ("umbrella", false)] {
        let repo = env.app(name);
        let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
        let lines: Vec<&str> = settings.lines().filter(|line| !line.starts_with("cmd = ")).collect();
        repo.write("phial.toml", lines.join("\n"));
        repo.commit("The default command");
        let image = format!("oci:{}:{name}", env.path("images"));
        run(env.phial(["build", repo.source(), "--base", &elixir(), "--to", &image])).ok();
        let bundle = env.path(&format!("{name}-bundle"));
        tool("umoci", &["unpack", "--image", &format!("{}:{name}", env.path("images")), &bundle]);
        let output = start_with_crun(&env, &bundle, read_only);
        assert_eq!(output.lines().last(), Some("prod 0"), "{name}: {output}");
    }
}

/// Starts the default command of a bundle, which says the environment and the owner of `/app` in place of waiting.
fn start_with_crun(env: &TestEnv, bundle: &str, read_only: bool) -> String {
    let config = Path::new(bundle).join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).expect("config.json")).expect("JSON");
    json["process"]["terminal"] = false.into();
    assert_eq!((&json["process"]["user"]["uid"], &json["process"]["cwd"]), (&65532.into(), &"/app".into()));
    let arguments = json["process"]["args"].as_array_mut().expect("a command");
    assert_eq!(arguments.pop(), Some("--no-halt".into()), "the app runs until it is stopped");
    arguments.extend(["-e", "IO.puts(\"#{Mix.env()} #{File.stat!(\".\").uid}\")"].map(Into::into));
    json["root"]["readonly"] = read_only.into();
    json["linux"]["namespaces"] =
        serde_json::json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]);
    for key in ["resources", "cgroupsPath", "maskedPaths", "readonlyPaths"] {
        json["linux"].as_object_mut().expect("an object").remove(key);
    }
    let mounts = json["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !["cgroup", "mqueue", "sysfs"].contains(&mount["type"].as_str().unwrap_or_default()));
    mounts.retain(|mount| mount["options"].as_array().is_none_or(|options| !options.contains(&"rbind".into())));
    mounts.push(
        serde_json::json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}),
    );
    fs::write(&config, json.to_string()).expect("config.json");
    let state = env.path("state");
    let name = format!("phial-{}", std::process::id());
    // crun stops at a machine with both kinds of cgroups, so it is shown one with none.
    let hide = "mount -t tmpfs none /sys/fs/cgroup; exec crun --cgroup-manager disabled \"$@\"";
    let crun = ["--mount", "sh", "-c", hide, "sh", "--root", &state, "run", "--bundle", bundle, &name];
    tool("unshare", &crun)
}

#[test]
fn the_config_and_the_annotations_say_where_the_image_comes_from() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    repo.git(["remote", "add", "origin", "https://somebody:canary@git.example/team/app.git"]);
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let image = format!("oci:{}:v1", env.path("layout"));
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &image])).ok();
    let raw = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&tool("skopeo", &[&["inspect", "--raw"], more, &[&image]].concat())).expect("JSON")
    };
    let notes: BTreeMap<String, String> = serde_json::from_value(raw(&[])["annotations"].clone()).expect("annotations");
    assert_eq!(notes["org.opencontainers.image.revision"], repo.git(["rev-parse", "HEAD"]).trim());
    assert_eq!(notes["org.opencontainers.image.source"], "https://git.example/team/app");
    assert!(notes["org.opencontainers.image.base.digest"].starts_with("sha256:"));
    let config = raw(&["--config"]);
    assert_eq!(config["created"], "2026-01-01T00:00:00Z", "the commit's time");
    let execution = &config["config"];
    assert_eq!((&execution["WorkingDir"], &execution["User"]), (&"/app".into(), &"65532:65532".into()));
    let history: Vec<&str> =
        config["history"].as_array().expect("history").iter().filter_map(|step| step["created_by"].as_str()).collect();
    assert_eq!(history, ["phial base", "phial deps", "phial app", "phial build prod"]);
    for entry in walkdir::WalkDir::new(env.path("layout")) {
        let entry = entry.expect("an entry");
        if entry.file_type().is_file() {
            let bytes = fs::read(entry.path()).expect("a blob");
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "{:?}", entry.path().as_os_str().as_bytes());
        }
    }
}

#[test]
fn commits_of_three_centuries_are_built() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let commit = repo.git(["cat-file", "commit", "HEAD"]);
    for (seconds, created) in
        [("0", "1970-01-01T00:00:00Z"), ("4102444800", "2100-01-01T00:00:00Z"), ("9000000000", "2255-03-14T16:00:00Z")]
    {
        let file = env.path("commit");
        fs::write(&file, commit.replace("1767225600 +0000", &format!("{seconds} +0000")) + "\n").expect("a commit");
        let sha = repo.git(["hash-object", "-t", "commit", "-w", &file]);
        let image = format!("oci:{}:v{seconds}", env.path("layout"));
        run(env.phial(["build", repo.source(), "--rev", &sha, "--base", &base, "--to", &image, "--twice"])).ok();
        let config: serde_json::Value =
            serde_json::from_str(&tool("skopeo", &["inspect", "--raw", "--config", &image])).expect("JSON");
        assert_eq!(config["created"], created);
        assert_eq!(run(env.phial(["run", "--progress", "quiet", &image])).ok(), "prod of 1.0", "{created}");
    }
}
