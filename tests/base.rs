//! Debian bases, made by the real `mmdebstrap` from this machine's own mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use phial::base_image::Purpose;
use phial::base_image::debian::{Debian, EPOCH, debian};
use phial::event::discard;
use phial::host::Host;

use crate::harness::prebuilt::{elixir_base, lock, service_images};
use crate::harness::{TestEnv, User, fixtures_dir, run, user_with_subids};

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

/// The digest of the one layer of the image in a layout.
fn layer(layout: &Path) -> String {
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--raw"]).arg(format!("oci:{}", layout.display()));
    let manifest: serde_json::Value = serde_json::from_str(&run(inspect).ok()).expect("JSON");
    manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned()
}

/// The root file system of a base for releases, made once for the tests that read it.
fn runtime() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let dir = fixtures_dir().join("runtime");
        let _held = lock("runtime");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let packages = Purpose::Runtime.packages("trixie", &[]);
        let base = Debian { suite: "trixie".into(), packages, mirrors: vec![], epoch: EPOCH };
        debian(&base, &Host::read(), &dir, &discard).expect("a base").tar
    })
}

#[test]
fn the_same_packages_make_the_same_bytes_and_name_nothing_of_the_machine() {
    let env = TestEnv::new();
    let before = lists();
    // Root's, below a directory that others may not reach or may, and another user's, in a user namespace.
    run(env.phial(["base", "import", &runtime().display().to_string(), "--to", "oci:roots"])).ok();
    let own = rustix::process::getuid().as_raw();
    let user = User::with(if own == 0 { user_with_subids() } else { own }, &[]);
    let other = user.phial(&["base", "debian", "--for", "runtime", "--suite", "trixie", "--to", "oci:base"]);
    run(other).ok();
    assert_eq!(layer(&env.dir().join("roots")), layer(Path::new(&user.path("base"))), "two users, two layers");
    assert_eq!(lists(), before, "this machine's own lists are not ours to change");

    let names = listing(runtime());
    for expected in ["./dev/", "./etc/hosts", "./bin", "./usr/bin/openssl"] {
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
    let rootfs = env.dir().join("rootfs.tar");
    fs::copy(runtime(), &rootfs).expect("a copy");
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
