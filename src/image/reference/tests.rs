//! Tables for the grammar of references.

use super::*;
use crate::error::UserError as _;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_reference_is_written_as_it_was_read() {
    let digest = format!("localhost:5000/team/app:v1.2@{D}");
    let layout = format!("oci:./out/app.oci:v1@{D}");
    for text in [
        "registry.example/app",
        "registry.example/app:v1",
        &digest,
        "localhost/app:_x",
        "[::1]:5000/a/b--c/d__e/f.g",
        "127.0.0.1:443/app",
        "oci:dir",
        "oci:/tmp/a:b/c",
        &layout,
        "oci-archive:out.tar:v1",
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }
    for text in ["registry.example/app:v1", "oci:dir:v1", "oci-archive:x@y.tar", "docker-archive:a.tar:v1"] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
    }
}

#[test]
fn short_names_mean_docker_hub_as_docker_reads_them() {
    for (short, long) in [
        ("debian:trixie", "docker.io/library/debian:trixie"),
        ("hexpm/elixir:1.18", "docker.io/hexpm/elixir:1.18"),
        ("docker.io/debian", "docker.io/library/debian"),
        ("index.docker.io/debian", "docker.io/library/debian"),
        ("Registry.Example/app", "registry.example/app"),
        ("localhost/app", "localhost/app"),
    ] {
        assert_eq!(short.parse::<Reference>().unwrap().to_string(), long);
    }
}

#[test]
fn a_bad_part_is_named() {
    let long_tag = format!("r.example/a:{}", "x".repeat(129));
    let long_name = format!("r.example/{}", "a/".repeat(130) + "a");
    for (text, expected) in [
        ("registry.example/Team/app", "repository part `Team`: upper case"),
        ("App", "repository part `App`: upper case"),
        ("registry.example/", "the repository is missing"),
        ("[::1]:5000", "the repository is missing"),
        ("", "the repository is missing"),
        ("registry.example/a//b", "between slashes is empty"),
        ("registry.example/a b", "` ` is not allowed"),
        ("registry.example/a..b", "are allowed between"),
        ("registry.example/a___b", "are allowed between"),
        ("registry.example/-a", "are allowed between"),
        ("registry.example/a:", "tag ``: it is empty"),
        ("registry.example/a:.x", "tag `.x`: it may not begin"),
        ("registry.example/a:v+1", "`+` is not allowed"),
        (&long_tag, "more than 128"),
        (&long_name, "more than 255"),
        ("registry.example/a@sha256:abc", "`sha256:abc` is not a digest"),
        ("registry.example/a@md5:d41d8cd98f00b204e9800998ecf8427e", "is not a digest"),
        ("registry.example:0/a", "the port"),
        ("registry.example:99999/a", "the port"),
        ("registry..example/a", "host `registry..example`"),
        ("reg_istry.example/a", "host `reg_istry.example`"),
        ("[::1/a", "the bracket"),
        ("[zz]:5000/a", "not an IPv6 address"),
        ("docker://registry.example/a", "`docker://` does not belong"),
        ("./app.oci", "looks like a path"),
        ("oci:", "the path is empty"),
        ("oci:dir:", "tag ``"),
        ("docker-archive:x.tar", "can be written, not read"),
        ("registry.example/a\u{1b}[31m", "\\u{1b}"),
    ] {
        let error = text.parse::<Reference>().expect_err(text);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_kind().code(), 2);
    }
    let error = "registry.example/Team/app".parse::<Reference>().unwrap_err();
    assert_eq!(error.hint().unwrap(), "write `team/app`");
}

#[test]
fn a_target_may_name_the_only_digest_that_it_takes() {
    for place in ["registry.example/a:v1", "oci:dir", "oci-archive:f.tar:v1", "docker-archive:f.tar"] {
        let target: Target = format!("{place}@{D}").parse().unwrap();
        assert_eq!((target.digest().unwrap().as_str(), target.without_digest().as_str()), (D, place));
        assert_eq!(target.to_string(), format!("{place}@{D}"));
    }
}

#[test]
fn a_digest_wins_over_a_tag() {
    let both: RegistryRef = format!("registry.example/a:v1@{D}").parse().unwrap();
    assert_eq!(both.selector(), D);
    let neither: RegistryRef = "registry.example/a".parse().unwrap();
    assert_eq!(neither.selector(), "latest");
}

#[test]
fn every_rule_holds_up_to_its_limit() {
    let tag = format!("r.example/a:{}", "x".repeat(128));
    // `r.example`, a slash, and 245 characters: 255 in all.
    let name = format!("r.example/{}", "a".repeat(245));
    for text in [
        &tag,
        &name,
        "r.example:1/a",
        "r.example:65535/a",
        "a-b.1/a",
        "[::1]/a",
        "localhost:80/a",
        "r.example/a_b/a__b/a---b/a.b/0",
        "r.example/a:A_.-9",
        "r.example/a:_",
    ] {
        assert_eq!(text.parse::<RegistryRef>().expect(text).to_string(), *text);
    }
    for text in [
        &format!("{tag}x"),
        &format!("{name}a"),
        "r.example:0/a",
        "r.example:65536/a",
        "r.example:+1/a",
        "r.example:/a",
        "-a.b/a",
        "a-.b/a",
        ".a/a",
        "[::1]x/a",
        "[::1]:/a",
        "[::1]",
        "r.example/a-",
        "r.example/_a",
        "r.example/a-_b",
        "r.example/a:-x",
        "r.example/a/",
    ] {
        assert!(text.parse::<RegistryRef>().is_err(), "{text}");
    }
    assert_eq!("localhost".parse::<RegistryRef>().unwrap().name(), "docker.io/library/localhost");
    assert_eq!("registry-1.docker.io/a/b".parse::<RegistryRef>().unwrap().name(), "docker.io/a/b");
    assert!("docker.io/".parse::<RegistryRef>().is_err());
}

#[test]
fn a_pinned_reference_keeps_its_tag_and_a_repository_has_neither() {
    let digest: Digest = D.parse().unwrap();
    for text in ["registry.example/a:v1", "oci:dir:v1", "oci-archive:f.tar:v1"] {
        let pinned = text.parse::<Reference>().unwrap().pinned(&digest);
        assert_eq!(pinned.to_string(), format!("{text}@{D}"));
    }
    let whole: RegistryRef = format!("registry.example/a:v1@{D}").parse().unwrap();
    assert_eq!(whole.repository_only().to_string(), "registry.example/a");
    assert_eq!("registry.example/a:v1".parse::<RegistryRef>().unwrap().selector(), "v1");
    let target: Target = "oci:dir:v1".parse().unwrap();
    assert_eq!((target.digest(), target.without_digest().as_str()), (None, "oci:dir:v1"));
}
