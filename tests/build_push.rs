//! Builds that go to a registry: what is uploaded, what is not, and what moves when.

use std::process::Command;

use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, Repo, TestEnv, run};

fn digest_of(line: &str) -> String {
    line.rsplit_once('@').expect("TARGET@digest").1.to_owned()
}

fn build(env: &TestEnv, repo: &Repo, base: &str, to: &[&str]) -> String {
    let mut command = env.phial(["build", repo.source(), "--base", base]);
    command.args(to.iter().flat_map(|to| ["--to", to]));
    digest_of(&run(command).ok())
}

fn skopeo(arguments: &[&str]) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(arguments);
    run(skopeo).ok()
}

/// The requests since `before` that brought bytes: methods and paths.
fn uploads(registry: &Registry, before: usize) -> Vec<String> {
    let new = registry.requests().split_off(before);
    new.into_iter().filter(|line| line.starts_with("PUT") || line.starts_with("PATCH")).collect()
}

#[test]
fn a_source_only_change_uploads_only_its_own_layers_and_runs_no_deps_step() {
    let env = TestEnv::with_empty_cache();
    let registry = Registry::start();
    let repo = env.shell_app();
    let base = registry.reference("team/base:1");
    let copy = ["copy", "--quiet", "--dest-tls-verify=false", &format!("oci:{}", busybox_base().display())];
    skopeo(&[&copy[..], &[&format!("docker://{base}")]].concat());
    let target = registry.reference("team/app:v1");
    let first = build(&env, &repo, &base, &[&target]);

    repo.write("notes", "only the source\n");
    repo.commit("Only the source");
    let before = registry.requests().len();
    let mut command = env.phial(["build", repo.source(), "--base", &base, "--to", &target, "--progress", "plain"]);
    command.env("NO_COLOR", "1");
    let ran = run(command);
    assert!(ran.stderr.lines().any(|line| line.starts_with("deps ") && line.contains("cached")), "{}", ran.stderr);
    let second = digest_of(&ran.ok());
    assert_ne!(first, second);
    let sent = uploads(&registry, before);
    let blobs = sent.iter().filter(|line| line.contains("/blobs/uploads/")).count();
    let manifests: Vec<&String> = sent.iter().filter(|line| line.contains("/manifests/")).collect();
    // The app and what is built of it, which carry the commit's time, and the config.
    assert_eq!(blobs, 3, "{sent:#?}");
    assert_eq!(manifests.len(), 2, "{sent:#?}");
    assert!(manifests[0].contains(&second) && manifests[1].contains("/v1"), "the tag moves last: {sent:#?}");

    let before = registry.requests().len();
    assert_eq!(build(&env, &repo, &base, &[&target]), second);
    assert_eq!(uploads(&registry, before), Vec::<String>::new(), "nothing changed, nothing sent");
}

#[test]
fn a_base_of_the_same_registry_is_mounted_and_its_blobs_never_leave_it() {
    let env = TestEnv::with_empty_cache();
    let registry = Registry::start();
    let repo = env.shell_app();
    let base = registry.reference("team/base:1");
    let from = format!("oci:{}", busybox_base().display());
    skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &from, &format!("docker://{base}")]);
    build(&env, &repo, &base, &[&registry.reference("team/app:v1")]);
    let mounts = registry.requests().into_iter().filter(|line| line.contains("mount=")).count();
    assert_eq!(mounts, 1, "{:#?}", registry.requests());
}

#[test]
fn every_target_gets_the_same_digest() {
    let env = TestEnv::new();
    let (open, closed) = (Registry::start(), Registry::with_htpasswd());
    let repo = env.shell_app();
    let login = env.dir().join("home/.docker/config.json");
    std::fs::create_dir_all(login.parent().expect("a folder")).expect("a folder");
    let mut skopeo_login = Command::new("skopeo");
    skopeo_login.args(["login", "--tls-verify=false", "--username", Registry::USER, "--password", Registry::PASSWORD]);
    skopeo_login.arg("--authfile").arg(&login).arg(closed.host());
    run(skopeo_login).ok();

    let base = format!("oci:{}", busybox_base().display());
    let targets = [
        open.reference("team/app:v1"),
        closed.reference("team/app:v1"),
        format!("oci:{}:v1", env.path("layout")),
        format!("oci-archive:{}:v1", env.path("archive.tar")),
        format!("docker-archive:{}:v1", env.path("docker.tar")),
    ];
    let digest = build(&env, &repo, &base, &targets.each_ref().map(String::as_str));
    let format = ["inspect", "--format", "{{.Digest}}"];
    let tls = ["--tls-verify=false"];
    assert_eq!(skopeo(&[&format[..], &tls, &[&format!("docker://{}", targets[0])]].concat()), digest);
    let creds = format!("--creds={}:{}", Registry::USER, Registry::PASSWORD);
    assert_eq!(skopeo(&[&format[..], &tls, &[&creds, &format!("docker://{}", targets[1])]].concat()), digest);
    assert_eq!(skopeo(&[&format[..], &[&targets[2]]].concat()), digest);
    assert_eq!(skopeo(&[&format[..], &[&targets[3]]].concat()), digest);
    let layers = |image: &str| skopeo(&["inspect", "--config", "--format", "{{.RootFS.DiffIDs}}", image]);
    let docker = format!("docker-archive:{}", env.path("docker.tar"));
    assert_eq!(layers(&docker), layers(&targets[2]), "an archive for Docker has the same tars");
}
