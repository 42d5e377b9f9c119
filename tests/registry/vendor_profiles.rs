//! Build, push and pull with each registry that users have, with a layer that is longer than some take at once.

use std::fs;
use std::process::Command;

use super::sample_images::{noise, run as tool};
use super::scripted::{Fault, Kind, Quirks, Registry, When};
use crate::harness::busybox::busybox_base;
use crate::harness::{TestEnv, run};

/// An environment that is logged in to the registry.
fn logged_in(registry: &Registry) -> TestEnv {
    let env = TestEnv::with_empty_cache();
    fs::create_dir_all(env.dir().join("home/.docker")).unwrap();
    fs::write(env.dir().join("home/.docker/config.json"), registry.config().to_string()).unwrap();
    env
}

/// The base, in the registry itself.
fn base(registry: &Registry, env: &TestEnv) -> String {
    let base = registry.reference("team/base:1").to_string();
    registry.make("team/base");
    let from = format!("oci:{}", busybox_base().display());
    let file = env.dir().join("home/.docker/config.json");
    let auth = ["--authfile", file.to_str().unwrap(), "--dest-tls-verify=false"];
    tool("skopeo", &[&["copy", "--quiet"], &auth[..], &[&from, &format!("docker://{base}")]].concat());
    base
}

fn there_and_back(quirks: &Quirks) {
    let name = quirks.name;
    // skopeo brings the base: it can do less than we can.
    let registry = Registry::with_tokens(quirks.clone());
    let env = logged_in(&registry);
    let easy = Registry::with_password(Quirks::none());
    let base = if skopeo_can(quirks) { base(&registry, &env) } else { base(&easy, &logged_in(&easy)) };
    registry.make("team/app");
    let mut config = registry.config();
    config["auths"].as_object_mut().unwrap().extend(easy.config()["auths"].as_object().unwrap().clone());
    fs::write(env.dir().join("home/.docker/config.json"), config.to_string()).unwrap();

    let repo = env.shell_app();
    repo.write("assets/noise", noise(7, 7_000_000));
    repo.commit("Something large");
    let to = registry.reference("team/app:v1").to_string();
    let before = registry.count(Kind::Patch);
    let build = || env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "quiet"]);
    let line = run(build()).ok();
    let digest = line.rsplit_once('@').unwrap().1;
    assert_eq!(registry.tag("team/app", "v1").unwrap().as_str(), digest, "{name}");
    let patches = registry.count(Kind::Patch) - before;
    assert_eq!(patches > 0, quirks.max_put && quirks.max_body.is_some(), "{name}: chunks only where they must be");

    let before = registry.journal().len();
    run(build()).ok();
    let writes: Vec<String> = registry.journal().split_off(before).iter().map(super::scripted::Entry::line).collect();
    assert!(writes.iter().all(|line| !line.starts_with('P') || line.contains("/token")), "{name}: {writes:#?}");

    let elsewhere = logged_in(&registry);
    let by_digest = format!("{}@{digest}", registry.reference("team/app"));
    for reference in [&to, &by_digest] {
        let mut ran: Command = elsewhere.phial(["run", "--progress", "quiet"]);
        ran.args([reference, "--", "cat", "out/prod/app"]);
        assert_eq!(run(ran).ok(), "prod of 1.0", "{name}");
    }
    assert_eq!(registry.broken_tags(), Vec::<String>::new(), "{name}");
    assert!(registry.storage_journal().iter().all(|entry| entry.authorization.is_none()), "{name}: credentials left");
    assert!(!quirks.storage || !registry.storage_journal().is_empty(), "{name}: its blobs are elsewhere");
}

/// Whether the base may be in the registry: skopeo trusts `expires_in` alone, and needs HEAD.
fn skopeo_can(quirks: &Quirks) -> bool {
    quirks.token_uses == usize::MAX && quirks.head_blob == super::scripted::Head::Works
}

#[test]
fn an_app_goes_to_every_registry_and_comes_back() {
    for quirks in Quirks::profiles() {
        there_and_back(&quirks);
    }
}

#[test]
fn layers_are_pulled_in_parallel_and_once_for_concurrent_builds() {
    let latency = std::time::Duration::from_millis(40);
    let registry = Registry::with_password(Quirks { latency, ..Quirks::none() });
    let env = logged_in(&registry);
    let base = super::interrupted_push::base(&env.dir().join("base"), 600_000);
    let to = registry.reference("team/base:1");
    let file = env.dir().join("home/.docker/config.json");
    let auth = ["--authfile", file.to_str().unwrap(), "--dest-tls-verify=false"];
    tool("skopeo", &[&["copy", "--quiet"], &auth[..], &[&base, &format!("docker://{to}")]].concat());
    let before = registry.journal().len();
    registry.peak_concurrency();
    let repo = env.shell_app();
    let builds: Vec<_> = (0..3)
        .map(|nth| {
            let out = format!("oci:{}", env.path(&format!("out{nth}")));
            let mut build = env.phial(["build", repo.source(), "--base", &to.to_string(), "--to", &out]);
            build.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut digests: Vec<String> = Vec::new();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        digests.push(text.trim().rsplit_once('@').unwrap().1.to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    assert!(registry.peak_concurrency() > 1);
    let layers = registry.journal().into_iter().skip(before).filter(|entry| entry.kind == Kind::GetBlob);
    let mut request: Vec<String> = layers.map(|entry| entry.path).collect();
    request.sort();
    let mut once = request.clone();
    once.dedup();
    // Each build reads the config for itself: it is part of what the base is.
    assert_eq!(request.len() - once.len(), 2, "{request:#?}");
}

#[test]
fn a_base_layer_that_is_corrupt_once_is_retried_and_a_wrong_one_is_refused() {
    let registry = Registry::with_password(Quirks::none());
    let first = logged_in(&registry);
    let base = base(&registry, &first);
    let repo = first.shell_app();
    let build = |env: &TestEnv| {
        let to = format!("oci:{}", env.path("out"));
        run(env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "quiet"]))
    };
    let right = build(&first).ok();
    let digest = |line: &str| line.rsplit_once('@').unwrap().1.to_owned();
    // The first blob is the config, the second the layer.
    for fault in [Fault::WrongDigest, Fault::ResetMid, Fault::Truncated, Fault::Garbage, Fault::Redirect] {
        registry.fail(Kind::GetBlob, When::Nth(2), fault);
        let line = build(&logged_in(&registry)).ok();
        assert_eq!(digest(&line), digest(&right), "{fault:?}");
        registry.heal();
    }
    for nth in [2, 3] {
        registry.fail(Kind::GetBlob, When::Nth(nth), Fault::WrongDigest);
    }
    let error = build(&logged_in(&registry)).failed(3);
    assert!(error.contains("sha256:"), "{error}");
}
