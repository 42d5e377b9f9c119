//! The caller's variables: those on the list arrive in the steps, others do not, and no value is stored or printed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use phial::recipe::PASSED;

use crate::harness::busybox::busybox_base;
use crate::harness::nginx::{Nginx, authority, certificate};
use crate::harness::prebuilt::elixir_base;
use crate::harness::{TestEnv, fixtures_dir, hex_registry, run};

/// Secrets of a CI that are nobody's business inside.
const OTHERS: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "CI_JOB_TOKEN",
    "DOCKER_AUTH_CONFIG",
    "GIT_TOKEN",
    "SSH_AUTH_SOCK",
];

/// Prints in each step which of the variables are there, and a checksum of each value, which is not printed.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
for name in @NAMES@; do
    eval "value=\${$name-}"
    if [ -n "$value" ]; then
        [ ! -f "$value" ] || value=$(cat "$value")
        echo "$name $(printf %s "$value" | busybox sha256sum | busybox cut -c1-64)"
    fi
done
mkdir -p out
echo "called $*" >>out/calls
"#;

fn sha256(text: &str) -> String {
    phial_layers::Digest::of(text.as_bytes()).hex().to_owned()
}

/// The file below a directory that contains these bytes, if one does; layers are unpacked.
fn contained_below(dir: &Path, needle: &str) -> Option<String> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).find_map(|path| {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = vec![];
            GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            bytes = plain;
        }
        let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        found.then(|| path.display().to_string())
    })
}

#[test]
fn listed_variables_of_the_caller_reach_the_steps_and_no_value_is_stored_or_printed() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    repo.write("phial.toml", settings.replace("[prepare]\n", "[prepare]\npass = [\"OWN_TOKEN\"]\n"));
    let listed: Vec<&str> = PASSED.iter().copied().chain(["OWN_TOKEN"]).collect();
    repo.script("script/prepare_code", &SCRIPT.replace("@NAMES@", &[&listed[..], &OTHERS].concat().join(" ")));
    repo.commit("What is seen");

    let value = |name: &str| format!("canary-of-{name}-{}", std::process::id());
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--json", "--progress", "plain"]);
    build.envs(OTHERS.map(|name| (name, value(name))));
    for name in &listed {
        if matches!(*name, "HEX_CACERTS_PATH" | "SSL_CERT_FILE") {
            fs::write(env.path(name), value(name)).unwrap();
            build.env(name, env.path(name));
        } else {
            build.env(name, value(name));
        }
    }
    // A file of certificates that is none would stop the client of registries, which has no part in this.
    build.env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
    let certificates = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let ran = run(build);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    for step in ["deps", "build prod"] {
        let prefix = format!("{step} | ");
        let seen: Vec<&str> = ran.stderr.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let expected: Vec<String> = listed
            .iter()
            .map(|name| {
                let held = if *name == "SSL_CERT_FILE" { certificates.trim_end().to_owned() } else { value(name) };
                format!("{name} {}", sha256(&held))
            })
            .collect();
        assert_eq!(seen, expected, "{step}");
    }
    for name in listed.iter().chain(&OTHERS).filter(|name| **name != "SSL_CERT_FILE") {
        let canary = value(name);
        assert!(!ran.stdout.contains(&canary) && !ran.stderr.contains(&canary), "{name} is printed");
        for place in [env.cache(), Path::new(&env.path("out"))] {
            assert_eq!(contained_below(place, &canary), None, "{name} is kept");
        }
    }
    let layout = env.path("out");
    assert!(contained_below(Path::new(&layout), "called build prod").is_some(), "the search sees into layers");
}

/// An app with one package of Hex, and nothing to compile of C.
const MIX: &str = r#"defmodule One.MixProject do
  use Mix.Project
  def project, do: [app: :one, version: "0.1.0", deps: [{:nimble_parsec, "~> 1.4"}]]
end
"#;

#[test]
fn a_hex_registry_with_a_ca_of_its_own_is_trusted_by_the_file_that_the_caller_names() {
    let env = TestEnv::with_empty_cache();
    let hex = hex_registry();
    let dir = authority();
    certificate(dir.path(), "server", "subjectAltName=IP:127.0.0.1");
    let root = fixtures_dir().join("hex/public");
    let nginx = Nginx::start(dir, |tls| format!("server {{ {tls} root {}; }}\n", root.display()));
    let repo = env.shell_app();
    for name in ["script/prepare_code", "VERSION", "phial.toml"] {
        fs::remove_file(repo.dir().join(name)).unwrap();
    }
    repo.write("mix.exs", MIX);
    repo.write("lib/one.ex", "defmodule One do\nend\n");
    repo.write("phial.toml", "[image]\nenvs = [\"prod\"]\n");
    run(crate::harness::in_rootfs(repo.dir(), ["mix", "deps.get"], &hex.env())).ok();
    repo.write(".gitignore", "deps/\n_build/\n");
    repo.commit("One package");

    let build = |certificates: Option<&str>| {
        let (base, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
        let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "plain"]);
        build.env("HEX_MIRROR", format!("https://127.0.0.1:{}", nginx.port)).env("HEX_UNSAFE_REGISTRY", "1");
        build.envs(certificates.map(|path| ("HEX_CACERTS_PATH", path)));
        run(build)
    };
    let output = build(None).failed(1);
    assert!(output.to_lowercase().contains("unknown ca"), "{output}");
    let missing = env.path("no-such.pem");
    let output = build(Some(&missing)).failed(2);
    assert!(output.contains("HEX_CACERTS_PATH") && output.contains(&missing), "{output}");
    let ca = nginx.path("ca.pem");
    build(Some(ca.to_str().unwrap())).ok();
    let log = nginx.log();
    assert!(log.contains("GET /tarballs/nimble_parsec-"), "{log}");
}
