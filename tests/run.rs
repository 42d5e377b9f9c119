//! `phial run`: a command in an image, rootless, in the same sandbox as the steps of a build.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{TestEnv, free_port, run};

fn small() -> String {
    format!("oci:{}", busybox_base().display())
}

#[test]
fn the_exit_code_and_the_signal_of_the_command_are_passed_on() {
    let env = TestEnv::new();
    assert_eq!(run(env.phial(["run", &small(), "--", "sh", "-c", "exit 7"])).code, Some(7));
    assert_eq!(run(env.phial(["run", &small(), "--", "sh", "-c", "kill -9 $$"])).code, Some(137));
    let error = run(env.phial(["run", &small(), "--", "nothing-there"])).failed(3);
    assert!(error.contains("`nothing-there`"), "{error}");
}

#[test]
fn stdin_stdout_and_stderr_are_the_callers_own() {
    let env = TestEnv::new();
    let mut command = env.phial(["run", "--progress", "quiet", &small(), "--", "sh", "-c", "cat; echo talk >&2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("phial");
    child.stdin.take().expect("a pipe").write_all(b"data\n").expect("written");
    let ended = child.wait_with_output().expect("an end");
    assert_eq!((ended.stdout, ended.stderr), (b"data\n".to_vec(), b"talk\n".to_vec()));
}

#[test]
fn what_the_command_writes_is_gone_afterwards() {
    let env = TestEnv::new();
    run(env.phial(["run", &small(), "--", "sh", "-c", "echo x > /etc/new && rm /bin/wc"])).ok();
    run(env.phial(["run", &small(), "--", "sh", "-c", "test ! -e /etc/new && test -e /bin/wc"])).ok();
    assert_ne!(run(env.phial(["run", "--read-only", &small(), "--", "touch", "/etc/new"])).code, Some(0));
}

/// A root filesystem of busybox where root owns `/srv` and `/srv/file`, user 65532 `/data`, group 7 `/shared`, and all may
/// write to `/drop` but not to `/drop/closed`.
fn image_of_several_owners(env: &TestEnv) -> String {
    let path = env.path("owners.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).expect("a file"));
    let mut add = |name: &str, (uid, gid): (u64, u64), mode, body: Option<&[u8]>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if body.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(body.map_or(0, <[u8]>::len) as u64);
        tar.append_data(&mut header, name, body.unwrap_or_default()).expect("an entry");
    };
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.expect("busybox");
    for name in ["bin/sh", "bin/ls"] {
        add(name, (0, 0), 0o755, Some(&busybox));
    }
    add("srv/", (0, 0), 0o755, None);
    add("srv/file", (0, 0), 0o644, Some(b"root's"));
    add("srv/own", (65532, 0), 0o644, Some(b"mine"));
    add("data/", (65532, 65532), 0o755, None);
    add("shared/", (0, 7), 0o775, None);
    add("drop/", (0, 0), 0o1777, None);
    tar.finish().expect("a tar");
    let image = format!("oci:{}", env.path("owners"));
    run(env.phial(["base", "import", &path, "--to", &image])).ok();
    image
}

#[test]
fn a_user_writes_only_where_the_image_lets_him_as_in_other_runtimes() {
    let env = TestEnv::with_empty_cache();
    let image = image_of_several_owners(&env);
    let write = "for path in /srv/file /srv/new /new /bin/ls /srv/own /data/new /shared/new /drop/new /tmp/new /dev/null /dev/shm/new; do \
                 (echo changed >>$path) 2>/dev/null && echo $path; done";
    let as_user = |user: &str, isolation: &str| {
        run(env.phial(["run", "--user", user, "--isolation", isolation, &image, "--", "/bin/sh", "-c", write])).ok()
    };
    let everywhere = "/tmp/new\n/dev/null\n/dev/shm/new";
    for isolation in ["overlay", "copy"] {
        let own = format!("/srv/own\n/data/new\n/drop/new\n{everywhere}");
        assert_eq!(as_user("65532:65532", isolation), own, "{isolation}");
        assert_eq!(as_user("1000:7", isolation), format!("/shared/new\n/drop/new\n{everywhere}"), "{isolation}");
        assert_eq!(as_user("0", isolation).lines().count(), 11, "{isolation}: root writes everywhere");
    }
}

#[test]
fn a_user_writes_to_the_callers_files_through_dev_stdout() {
    let env = TestEnv::with_empty_cache();
    let image = image_of_several_owners(&env);
    let (out, err) = (env.path("out.txt"), env.path("err.txt"));
    let script = "echo one >/dev/stdout; echo two >>/dev/stderr";
    let mut command =
        env.phial(["run", "--progress", "quiet", "--user", "65532", &image, "--", "/bin/sh", "-c", script]);
    command.stdout(std::fs::File::create(&out).expect("a file")).stderr(std::fs::File::create(&err).expect("a file"));
    assert!(command.status().expect("phial").success(), "{:?}", std::fs::read_to_string(&err));
    assert_eq!(std::fs::read_to_string(out).expect("a file"), "one\n");
    assert_eq!(std::fs::read_to_string(err).expect("a file"), "two\n");
}

#[test]
fn only_the_images_variables_and_those_that_are_asked_for_are_there() {
    let env = TestEnv::new();
    let mut command = env.phial(["run", &small(), "--env", "ONE=1", "--env", "TWO", "--", "env"]);
    command.env("TWO", "2").env("THREE", "3");
    let output = run(command).ok();
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    names.retain(|name| !["SHLVL", "PWD", "_", "TERM"].contains(name));
    assert_eq!(names, ["HOME", "ONE", "PATH", "TWO"]);
}

#[test]
fn without_overlay_the_next_isolation_is_used_and_named() {
    let env = TestEnv::new();
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(env.dir().join(name)).unwrap();
    }
    let phial = env.phial(["run", "--cache-dir", "merged/cache", &small(), "--", "echo", "here"]);
    // No overlay has its upper directory in an overlay.
    let script = "mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged && exec \"$@\"";
    let mut nested = Command::new("unshare");
    nested.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    nested.arg(phial.get_program()).args(phial.get_args()).current_dir(env.dir());
    let ran = run(nested);
    assert!(ran.stderr.contains("isolation: copy"), "{ran:?}");
    assert_eq!(ran.ok(), "here");

    let ran = run(env.phial(["run", "--workdir", "/nowhere", &small(), "--", "pwd"]));
    assert!(!ran.stderr.contains("isolation: copy"), "{ran:?}");
    assert!(ran.failed(3).contains("cannot enter the working directory `/nowhere`"));
}

#[test]
fn a_cache_on_a_disk_without_execution_is_named() {
    let env = TestEnv::new();
    std::fs::create_dir(env.dir().join("disk")).unwrap();
    let mut isolations = vec!["copy"];
    if rustix::process::geteuid().is_root() {
        isolations.push("chroot");
    }
    for isolation in isolations {
        let phial = env.phial(["run", "--cache-dir", "disk/cache", "--isolation", isolation, &small(), "--", "echo"]);
        let mut command = Command::new("unshare");
        let user: &[&str] = if isolation == "copy" { &["--user", "--map-root-user"] } else { &[] };
        let script = "mount -t tmpfs -o noexec none disk && exec \"$@\"";
        command.args(user).args(["--mount", "sh", "-c", script, "sh"]);
        command.arg(phial.get_program()).args(phial.get_args()).current_dir(env.dir());
        let stderr = run(command).failed(6);
        assert!(stderr.contains("`noexec`") && stderr.contains("PHIAL_CACHE_DIR"), "{stderr}");
    }
}

#[test]
fn a_built_app_starts_in_prod_and_answers_over_http() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let (from, image) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    run(env.phial(["build", repo.source(), "--base", &from, "--to", &image])).ok();
    let port = free_port();
    let mut app = env.phial(["run", &image, "--env", &format!("PORT={port}")]);
    let mut app = app.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("phial");
    let start = Instant::now();
    let answer = loop {
        assert!(start.elapsed() < Duration::from_secs(60), "the app does not answer");
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
                break answer;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    rustix::process::kill_process(rustix::process::Pid::from_child(&app), rustix::process::Signal::TERM).expect("sent");
    assert_eq!(app.wait().expect("an end").code(), Some(143));
    assert!(answer.contains("\"env\":\"prod\""), "{answer}");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "nothing of it is left");
}

#[test]
fn device_nodes_of_a_base_are_counted_in_a_notice_and_stay_in_its_layer() {
    let env = TestEnv::with_empty_cache();
    let path = env.path("rootfs.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).expect("a file"));
    let mut add = |name: &str, kind, mode, link: &str, body: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(body.len() as u64);
        if kind == tar::EntryType::Char {
            header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("numbers of a device");
        }
        match kind {
            tar::EntryType::Symlink => tar.append_link(&mut header, name, link),
            _ => tar.append_data(&mut header, name, body),
        }
        .expect("an entry");
    };
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
    add("bin/busybox", tar::EntryType::Regular, 0o755, "", &busybox.expect("busybox"));
    add("bin/sh", tar::EntryType::Symlink, 0o777, "busybox", b"");
    add("srv/null", tar::EntryType::Char, 0o666, "", b"");
    add("srv/zero", tar::EntryType::Char, 0o666, "", b"");
    tar.finish().expect("a tar");
    let image = format!("oci:{}", env.path("image"));
    run(env.phial(["base", "import", &path, "--to", &image])).ok();
    let ran = run(env.phial(["run", "--progress", "plain", &image, "--", "sh", "-c", "echo /srv/*"]));
    assert!(ran.stderr.contains("2 device nodes of `sha256:"), "{}", ran.stderr);
    assert_eq!(ran.ok(), "/srv/*");
    let layer = std::fs::read_dir(env.path("image/blobs/sha256")).expect("blobs").filter_map(Result::ok);
    let layer = layer.max_by_key(|entry| entry.metadata().map(|meta| meta.len()).unwrap_or_default()).expect("a layer");
    let mut list = std::process::Command::new("tar");
    list.arg("-tvzf").arg(layer.path());
    let listed = run(list).ok();
    assert!(listed.lines().any(|line| line.starts_with('c') && line.contains("srv/null")), "{listed}");
}
