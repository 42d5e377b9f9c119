//! `registries.conf`: bases come from mirrors and remapped places, and nothing goes there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Command;
use std::sync::{Arc, Mutex};

use phial::error::UserError as _;
use phial::event::Event;
use phial::host::Host;
use phial::image::{Image, Platform, RegistryRef};
use phial::registry::{Client, NetworkOptions, RegistryError};
use serde_json::json;

use super::nginx_front::NginxFront;
use super::sample_images::{chain, pushed, run as tool};
use super::scripted::{Entry, Fault, Kind, Quirks, Registry, When, quick_retries, quick_timeouts};
use crate::harness::busybox::busybox_base;
use crate::harness::{self, TestEnv, run};

/// A client with a `registries.conf`, and its notices.
struct User {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
    home: tempfile::TempDir,
}

impl User {
    fn new(conf: &str) -> Self {
        Self::with(conf, &[])
    }

    fn with(conf: &str, env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("registries.conf").display().to_string();
        fs::write(&file, conf).unwrap();
        let env = env.iter().copied().chain([("CONTAINERS_REGISTRIES_CONF", file.as_str())]);
        let env: BTreeMap<_, _> = env.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let host = Host { env, cwd: home.path().into(), home: home.path().into(), ..Host::read() };
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let to = Arc::clone(&notices);
        let client = Client::from_host(&host, &NetworkOptions::default()).unwrap().with_retry_policy(quick_retries());
        let client = client.with_notices(move |event| match event {
            Event::Notice { text } => to.lock().unwrap().push(text),
            other => panic!("{other:?}"),
        });
        Self { client, notices, home }
    }

    fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().clone()
    }

    fn conf(&self) -> String {
        self.home.path().join("registries.conf").display().to_string()
    }

    /// The image with all its layers.
    fn pull(&self, name: &RegistryRef) -> Result<Image, RegistryError> {
        let client = self.client.through_mirrors(name);
        let image = client.image(name, &Platform::host())?;
        for layer in &image.manifest.layers {
            let read = client.blob(name, layer)?.read_to_end(&mut Vec::new());
            read.map_err(|source| RegistryError::Source { digest: layer.digest.clone(), source: source.into() })?;
        }
        Ok(image)
    }
}

fn push(client: &Client, to: &RegistryRef, content: &[u8]) -> Image {
    pushed(client, to, content).unwrap()
}

fn fill(registry: &Registry, name: &str) -> Image {
    push(&User::new("").client, &registry.reference(name), b"one")
}

fn mirrored(origin: &Registry, mirror: &str) -> String {
    format!("[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{mirror}'\n", origin.host)
}

fn lines(of: &[Entry]) -> Vec<String> {
    of.iter().map(Entry::line).collect()
}

#[test]
fn a_pull_comes_from_the_mirror_and_a_push_never_goes_there() {
    let (origin, mirror) = (Registry::open(Quirks::none()), Registry::open(Quirks::none()));
    let image = fill(&origin, "team/app:v1");
    fill(&mirror, "copies/team/app:v1");
    let user = User::new(&mirrored(&origin, &format!("{}/copies", mirror.host)));
    let (before, filled) = (origin.journal().len(), mirror.journal().len());
    let name = origin.reference("team/app:v1");
    assert_eq!(user.pull(&name).unwrap(), image);
    assert_eq!(lines(&origin.journal()[before..]), [""; 0], "the origin saw nothing");
    let requests = mirror.journal().split_off(filled);
    assert!(requests.len() >= 4 && requests.iter().all(|e| e.path.starts_with("/v2/copies/team/app/")), "{requests:?}");
    let by_digest = RegistryRef { tag: None, digest: Some(image.manifest_digest.clone()), ..name.clone() };
    assert_eq!(user.pull(&by_digest).unwrap(), image);
    assert_eq!(user.notices(), [""; 0]);

    let requests = mirror.journal().len();
    push(&user.client, &origin.reference("team/app:v2"), b"two");
    assert!(user.client.resolve(&name).is_ok(), "who does not ask for mirrors gets none");
    assert_eq!(mirror.journal().len(), requests, "a push has nothing to do with mirrors");
    assert!(origin.tag("team/app", "v2").is_some());
    // Others read the same file the same way.
    let before = origin.journal().len();
    let conf = format!(
        "{}insecure = true\n[[registry]]\nlocation = '{}'\ninsecure = true\n",
        mirrored(&origin, &format!("{}/copies", mirror.host)),
        mirror.host
    );
    fs::write(user.conf(), conf).unwrap();
    let digest = tool(
        "skopeo",
        &[
            "--registries-conf",
            &user.conf(),
            "inspect",
            "--no-tags",
            "--format",
            "{{.Digest}}",
            &format!("docker://{name}"),
        ],
    );
    assert_eq!(digest.trim(), image.manifest_digest.as_str());
    assert_eq!(lines(&origin.journal()[before..]), [""; 0]);
}

#[test]
fn a_failing_mirror_is_skipped_with_a_notice() {
    type Break = fn(&Registry);
    let broken: [(&str, Break, &str); 7] = [
        (
            "copies/team/app:v1",
            |mirror| mirror.fail(Kind::GetTag, When::Always, Fault::Status(500)),
            "returned status 500",
        ),
        ("copies/team/app:v1", |mirror| mirror.fail(Kind::GetTag, When::Always, Fault::ResetBefore), "cannot reach"),
        (
            "copies/team/app:v1",
            |mirror| mirror.fail(Kind::GetTag, When::Always, Fault::Garbage),
            "does not respond like a registry",
        ),
        (
            "copies/team/app:v1",
            |mirror| mirror.fail(Kind::GetBlob, When::Always, Fault::Status(404)),
            "is not in the registry",
        ),
        (
            "copies/team/app:v1",
            |mirror| mirror.fail(Kind::GetBlob, When::Always, Fault::WrongDigest),
            "does not match its digest",
        ),
        (
            "copies/team/app:v1",
            |mirror| {
                mirror.fail(Kind::GetBlob, When::Always, Fault::ResetMid);
                mirror.fail(Kind::GetRange, When::Always, Fault::ResetMid);
            },
            "broke off",
        ),
        ("copies/team/other:v1", |_| (), "is not in the registry"),
    ];
    for (name, spoil, expected) in broken {
        let (origin, mirror) = (Registry::open(Quirks::none()), Registry::open(Quirks::none()));
        let image = fill(&origin, "team/app:v1");
        fill(&mirror, name);
        spoil(&mirror);
        let user = User::new(&mirrored(&origin, &format!("{}/copies", mirror.host)));
        let pulled = user.pull(&origin.reference("team/app:v1"));
        assert_eq!(pulled.map_err(|error| chain(&error)).unwrap(), image, "{expected}");
        let notices = user.notices();
        let start = format!("the mirror `{}/copies/team/app` is skipped: ", mirror.host);
        assert!(!notices.is_empty() && notices.iter().all(|text| text.starts_with(&start)), "{expected}: {notices:?}");
        assert!(notices[0].contains(expected), "{expected}: {notices:?}");
    }
}

#[test]
fn whatever_goes_wrong_at_a_mirror_the_image_is_the_same() {
    let origin = Registry::open(Quirks::none());
    let image = fill(&origin, "team/app:v1");
    let tag = origin.reference("team/app:v1");
    let digest = RegistryRef { tag: None, digest: Some(image.manifest_digest.clone()), ..tag.clone() };
    for fault in Fault::ALL {
        for kind in [Kind::GetTag, Kind::GetManifest, Kind::GetBlob] {
            let mirror = Registry::with_tokens(Quirks::none());
            let login = mirror.config().to_string();
            let user = User::with(&mirrored(&origin, &mirror.host), &[("DOCKER_AUTH_CONFIG", &login)]);
            push(&user.client, &mirror.reference("team/app:v1"), b"one");
            mirror.fail(kind, When::Always, fault);
            mirror.fail(Kind::GetRange, When::Always, fault);
            let user = User { client: user.client.with_retry_policy(quick_timeouts()), ..user };
            let name = if kind == Kind::GetManifest { &digest } else { &tag };
            let pulled = user.pull(name).unwrap_or_else(|error| panic!("{kind:?} {fault:?}: {}", chain(&error)));
            assert_eq!(pulled, image, "{kind:?} {fault:?}");
            let is_served = fault == Fault::Redirect;
            assert_eq!(user.notices().is_empty(), is_served, "{kind:?} {fault:?}: {:?}", user.notices());
        }
    }
}

#[test]
fn a_mirror_that_is_down_is_not_asked_again_and_the_next_one_serves() {
    let (origin, mirror) = (Registry::open(Quirks::none()), Registry::open(Quirks::none()));
    let image = fill(&mirror, "team/app:v1");
    let nobody = format!("127.0.0.1:{}", crate::harness::free_port());
    let conf = format!("{}[[registry.mirror]]\nlocation = '{}'\n", mirrored(&origin, &nobody), mirror.host);
    let user = User::new(&conf);
    assert_eq!(user.pull(&origin.reference("team/app:v1")).unwrap(), image);
    assert_eq!(user.notices().len(), 1, "{:?}", user.notices());
    assert_eq!(origin.journal().len(), 0);
}

#[test]
fn no_login_crosses_from_a_registry_to_its_mirror() {
    let (origin, mirror) = (Registry::with_password(Quirks::none()), Registry::with_password(Quirks::none()));
    let login = origin.config().to_string();
    let user = User::with(&mirrored(&origin, &mirror.host), &[("DOCKER_AUTH_CONFIG", &login)]);
    let name = origin.reference("team/app:v1");
    let image = push(&user.client, &name, b"one");
    assert_eq!(user.pull(&name).unwrap(), image);
    assert!(user.notices()[0].contains("refuses access"), "{:?}", user.notices());
    assert!(!mirror.journal().is_empty() && mirror.journal().iter().all(|entry| entry.authorization.is_none()));
    // A login of the mirror's own is used there, and there alone.
    let login = mirror.config().to_string();
    let owner = User::with("", &[("DOCKER_AUTH_CONFIG", &login)]);
    push(&owner.client, &mirror.reference("team/app:v1"), b"one");
    let before = origin.journal().len();
    let user = User::with(&mirrored(&origin, &mirror.host), &[("DOCKER_AUTH_CONFIG", &login)]);
    assert_eq!(user.pull(&name).unwrap(), image);
    assert_eq!(origin.journal().len(), before);
}

#[test]
fn some_mirrors_are_for_tags_and_some_for_digests() {
    let mirror = Registry::open(Quirks::none());
    let image = fill(&mirror, "team/app:v1");
    for (line, by_tag, by_digest) in [
        ("", true, true),
        ("pull-from-mirror = 'digest-only'", false, true),
        ("pull-from-mirror = 'tag-only'", true, false),
    ] {
        let origin = Registry::open(Quirks::none());
        fill(&origin, "team/app:v1");
        let user = User::new(&format!("{}{line}\n", mirrored(&origin, &mirror.host)));
        let tag = origin.reference("team/app:v1");
        let digest = RegistryRef { digest: Some(image.manifest_digest.clone()), ..tag.clone() };
        for (name, is_mirrored) in [(tag, by_tag), (digest, by_digest)] {
            let before = (origin.journal().len(), mirror.journal().len());
            assert_eq!(user.pull(&name).unwrap(), image);
            let requests = (origin.journal().len() > before.0, mirror.journal().len() > before.1);
            assert_eq!(requests, (!is_mirrored, is_mirrored), "{line}: {name}");
        }
    }
}

#[test]
fn a_location_replaces_the_name_and_a_blocked_prefix_is_refused() {
    let real = Registry::open(Quirks::none());
    let image = fill(&real, "proxy/team/app:v1");
    let conf = format!(
        "[[registry]]\nprefix = 'registry.example/team'\nlocation = '{}/proxy/team'\n\
         [[registry]]\nprefix = 'registry.example/team/bad'\nlocation = '{0}/proxy'\nblocked = true\n",
        real.host
    );
    let user = User::new(&conf);
    assert_eq!(user.pull(&"registry.example/team/app:v1".parse().unwrap()).unwrap(), image);
    let before = real.journal().len();
    let bad: RegistryRef = "registry.example/team/bad/app:v1".parse().unwrap();
    for error in [user.pull(&bad).unwrap_err(), user.client.head_manifest(&bad).unwrap_err()] {
        assert!(matches!(error, RegistryError::Blocked { .. }) && error.exit_kind().code() == 2);
        assert!(error.to_string().starts_with("`registry.example/team/bad/app` is blocked by `"), "{error}");
    }
    assert_eq!(real.journal().len(), before);
}

#[test]
fn an_insecure_registry_may_use_plain_http_and_no_other_may() {
    let registry = Registry::open(Quirks::none());
    let proxy = format!("http://{}", registry.host);
    let conf = "[[registry]]\nlocation = 'registry.example/team'\ninsecure = true\n";
    let user = User::with(conf, &[("HTTP_PROXY", &proxy)]);
    let name: RegistryRef = "registry.example/team/app:v1".parse().unwrap();
    let image = push(&user.client, &name, b"one");
    assert_eq!(user.pull(&name).unwrap(), image);
    assert!(registry.journal().iter().all(|entry| entry.host == "registry.example"));
    let before = registry.journal().len();
    for other in ["registry.example/others/app:v1", "other.example/team/app:v1"] {
        let error = user.pull(&other.parse().unwrap()).unwrap_err();
        assert!(matches!(error, RegistryError::Reach { .. }), "{}", chain(&error));
    }
    assert_eq!(registry.journal().len(), before);
    // A mirror is insecure by its own word, whatever the registry is.
    for (is_insecure, words) in [("true", 0), ("false", 1)] {
        let origin = Registry::open(Quirks::none());
        fill(&origin, "team/app:v1");
        let conf = format!("{}insecure = {is_insecure}\n", mirrored(&origin, "registry.example"));
        let user = User::with(&conf, &[("HTTP_PROXY", &proxy)]);
        assert_eq!(user.pull(&origin.reference("team/app:v1")).unwrap(), image);
        assert_eq!(user.notices().len(), words, "{:?}", user.notices());
    }
}

#[test]
fn an_insecure_registry_may_have_an_untrusted_certificate_and_no_other_may() {
    let front = NginxFront::with_htpasswd("");
    let login = json!({"auths": {"registry.example": {"auth": "dXNlcjpwYXNzd29yZA=="}}}).to_string();
    let conf = "[[registry]]\nlocation = 'registry.example/team'\ninsecure = true\n";
    let user = User::with(conf, &[("HTTPS_PROXY", &front.proxy()), ("DOCKER_AUTH_CONFIG", &login)]);
    let name: RegistryRef = "registry.example/team/app:v1".parse().unwrap();
    let image = push(&user.client, &name, b"one");
    assert_eq!(user.pull(&name).unwrap(), image);
    let log = front.log();
    let error = user.pull(&"registry.example/others/app:v1".parse().unwrap()).unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    assert_eq!(front.log(), log, "nothing is sent to a stranger");
}

fn copy(to: &str) {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]).arg(format!("oci:{}", busybox_base().display()));
    skopeo.arg(format!("docker://{to}"));
    run(skopeo).ok();
}

#[test]
fn a_layer_that_is_corrupt_on_a_mirror_comes_from_the_location() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let (origin, mirror) = (Registry::open(Quirks::none()), Registry::open(Quirks::none()));
    let base = origin.reference("team/base:1").to_string();
    copy(&base);
    copy(&mirror.reference("team/base:1").to_string());
    // The first blob is the config.
    mirror.fail(Kind::GetBlob, When::Nth(2), Fault::WrongDigest);
    let home = env.dir().join("home/.config/containers");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("registries.conf"), mirrored(&origin, &mirror.host)).unwrap();
    let (before, to) = (origin.journal().len(), format!("oci:{}", env.path("out")));
    let built = run(env.phial(["build", repo.source(), "--base", &base, "--to", &to]));
    let note = format!("note: the mirrors of `{}/team/base` are skipped: they sent other bytes", origin.host);
    assert_eq!(built.stderr.matches(&note).count(), 1, "{}", built.stderr);
    built.ok();
    let requests = origin.journal().split_off(before);
    assert!(requests.len() == 1 && requests[0].kind == Kind::GetBlob, "{requests:?}");
}

#[test]
fn a_build_over_a_mirrored_base_is_the_same_image_and_doctor_says_where_it_came_from() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let (origin, mirror) = (Registry::open(Quirks::none()), harness::Registry::start());
    let base = origin.reference("team/base:1").to_string();
    copy(&base);
    let build = || {
        let to = format!("oci:{}", env.path("out"));
        run(env.phial(["build", repo.source(), "--base", &base, "--to", &to]))
    };
    let image = build().ok();
    copy(&mirror.reference("copies/team/base:1"));
    let (before, home) = (origin.journal().len(), env.dir().join("home/.config/containers"));
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("registries.conf"), mirrored(&origin, &mirror.reference("copies"))).unwrap();
    fs::remove_dir_all(env.cache()).unwrap();
    assert_eq!(build().ok(), image);
    assert_eq!(origin.journal().len(), before, "all of the base is in the mirror");

    let output = run(env.phial(["doctor", "--registry", &base])).ok();
    let conf = home.join("registries.conf").display().to_string();
    assert!(output.contains(&format!("the entry `{}` of `{conf}`", origin.host)), "{output}");
    assert!(output.contains(&format!("pulled from `{}`: works", mirror.reference("copies/team/base:1"))), "{output}");
    let output = run(env.phial(["doctor", "--json", "--registry", &base])).ok();
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    let source = &json["mirrors"]["sources"][0];
    assert_eq!(
        (&source["at"], &source["has"]["state"]),
        (&json!(mirror.reference("copies/team/base:1")), &json!("works"))
    );
    fs::write(home.join("registries.conf"), "[[registry]]\nlocation =\n").unwrap();
    let error = build().failed(2);
    assert!(error.contains(&format!("cannot use `{conf}`: line 2")), "{error}");
}
