//! Debian bases, made by the real `mmdebstrap` from this machine's own mirror.

use std::fs;
use std::path::Path;
use std::process::Command;

use phial::base_image::Purpose;
use phial::base_image::debian::{Debian, EPOCH, debian};
use phial::event::discard;
use phial::host::Host;

use crate::harness::prebuilt::{elixir_base, service_images};
use crate::harness::{TestEnv, run};

/// The names of this machine's own package lists.
fn lists() -> Vec<String> {
    let read = fs::read_dir("/var/lib/apt/lists").expect("apt's lists");
    let mut names: Vec<_> =
        read.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn listing(tar: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("--list").arg("--file").arg(tar).output().expect("tar");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn the_same_packages_make_the_same_bytes_and_name_nothing_of_the_machine() {
    let order =
        Debian { suite: "trixie".into(), packages: vec!["busybox-static".into()], mirrors: vec![], epoch: EPOCH };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = Host::read();
    let before = lists();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| debian(&order, &host, one.path(), &discard).expect("a base"));
        let second = debian(&order, &host, two.path(), &discard).expect("a base again");
        (first.join().expect("no panic"), second)
    });
    assert!(fs::read(&first.tar).unwrap() == fs::read(&second.tar).unwrap(), "two runs, two tars");
    assert_eq!(lists(), before, "this machine's own lists are not ours to change");

    let names = listing(&first.tar);
    for expected in ["./dev/", "./etc/hosts", "./bin", "./usr/bin/busybox"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is missing");
    }
    for unwanted in
        ["./etc/resolv.conf", "./etc/hostname", "./etc/apt/sources.list", "./dev/null", "./var/log/dpkg.log"]
    {
        assert!(!names.iter().any(|name| name == unwanted), "{unwanted} is there");
    }
}

#[test]
fn a_service_has_no_key_and_no_database_that_its_packages_made() {
    let env = TestEnv::new();
    let image = format!("oci:{}", service_images().join("postgres").display());
    let find = "find /etc/ssl/private /etc/ssl/certs/ssl-cert-snakeoil.pem /var/lib/postgresql /etc/postgresql -type f; \
                find /etc/ssl/certs -xtype l; ls /usr/lib/postgresql/*/bin/initdb";
    let output = run(env.phial(["run", "--progress", "quiet", &image, "--", "sh", "-c", find]));
    assert_eq!(output.stdout.trim(), "/usr/lib/postgresql/17/bin/initdb", "{}", output.stderr);
}

#[test]
fn a_base_for_releases_has_what_erlang_loads() {
    let env = TestEnv::new();
    let order = Debian {
        suite: "trixie".into(),
        packages: Purpose::Runtime.packages("trixie", &[]),
        mirrors: vec![],
        epoch: EPOCH,
    };
    let rootfs = debian(&order, &Host::read(), env.dir(), &discard).expect("a base").tar;
    let erlang = env.path("erlang.tar");
    let builder = format!("oci:{}", elixir_base().display());
    let mut pack = env.phial(["run", "--progress", "quiet", &builder, "--", "tar", "-C", "/", "-c", "usr/lib/erlang"]);
    assert!(pack.stdout(fs::File::create(&erlang).expect("a file")).status().expect("phial").success());
    let mut join = Command::new("tar");
    join.arg("--concatenate").arg("--file").arg(&rootfs).arg(&erlang);
    run(join).ok();
    let image = format!("oci:{}", env.path("runtime"));
    run(env.phial(["base", "import", &rootfs.display().to_string(), "--to", &image])).ok();
    let script = "io:format(\"~p\", [crypto:strong_rand_bytes(4) =/= <<>>]), {ok, _} = application:ensure_all_started(ssl), halt().";
    let erl = ["/usr/lib/erlang/bin/erl", "-noshell", "-eval", script];
    assert_eq!(run(env.phial([&["run", "--progress", "quiet", &image, "--"], &erl[..]].concat())).ok(), "true");
}
