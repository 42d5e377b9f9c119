use std::path::Path;

use super::{BaseError, Debian, ELIXIR_PACKAGES, EPOCH, Purpose, call, has_range, login};
use crate::error::UserError as _;

fn debian(packages: &[&str]) -> Debian {
    Debian {
        suite: "trixie".into(),
        packages: packages.iter().map(ToString::to_string).collect(),
        mirrors: vec![],
        epoch: EPOCH,
    }
}

fn arguments(packages: &[&str]) -> Vec<String> {
    call::arguments(&debian(packages), &["deb uri trixie main".into()], "root", Path::new("out.tar"))
        .into_iter()
        .map(|argument| argument.into_string().expect("UTF-8"))
        .collect()
}

fn include(packages: &[&str]) -> String {
    arguments(packages).iter().find_map(|a| a.strip_prefix("--include=")).unwrap_or_default().to_owned()
}

#[test]
fn packages_are_asked_for_sorted_and_once() {
    assert_eq!(include(&["make", "git", "make"]), "git,make");
    assert_eq!(arguments(&["git", "make"]), arguments(&["make", "git"]));
}

#[test]
fn a_base_for_elixir_has_what_a_builder_needs_and_what_is_named_besides() {
    let more = ["nodejs".to_owned(), String::new(), "git".to_owned()];
    let packages = Purpose::Elixir.packages("trixie", &more);
    let named: Vec<&str> = packages.iter().map(String::as_str).collect();
    let by_hand = [&["nodejs"], &ELIXIR_PACKAGES[..]].concat();
    assert_eq!(arguments(&named), arguments(&by_hand));
    assert_eq!(Purpose::Minimal.packages("trixie", &more), ["nodejs", "git"]);
    assert_eq!(Purpose::Minimal.packages("trixie", &[]), Vec::<String>::new());
}

#[test]
fn a_suite_without_a_package_for_hex_is_not_asked_for_it() {
    let has_hex = |suite| Purpose::Elixir.packages(suite, &[]).iter().any(|name| name == "erlang-hex");
    assert_eq!(["bookworm", "trixie", "sid"].map(has_hex), [false, true, true]);
}

#[test]
fn a_suite_is_named_by_its_version_too() {
    let given = ["12", "12.11", "13", "trixie", "unstable", "sid", "1"];
    assert_eq!(given.map(super::super::suite), ["bookworm", "bookworm", "trixie", "trixie", "sid", "sid", "1"]);
}

#[test]
fn rebar3_is_unpacked_and_registered_but_never_installed() {
    let included = include(&["elixir", "rebar3"]);
    assert!(!included.split(',').any(|name| name == "rebar3"), "{included}");
    assert!(included.split(',').any(|name| name == "erlang-parsetools"), "{included}");
    let hooks = arguments(&["elixir", "rebar3"]).join("\n");
    assert!(hooks.contains("download rebar3") && hooks.contains("mix local.rebar"), "{hooks}");
    assert!(!arguments(&["rebar3"]).join("\n").contains("mix local.rebar"));
    assert!(!arguments(&["elixir"]).join("\n").contains("rebar3"));
}

#[test]
fn the_hook_that_forgets_the_machine_is_the_last() {
    let all = arguments(&["elixir", "rebar3"]);
    let last = all.iter().rfind(|a| a.starts_with("--customize-hook=")).expect("a hook");
    assert!(last.contains("etc/resolv.conf") && last.contains("etc/apt/sources.list"), "{last}");
    assert!(!last.contains(" tmp"), "mmdebstrap's own apt configuration is in there: {last}");
}

#[test]
fn the_suite_the_file_and_the_mirrors_close_the_call() {
    assert!(arguments(&[]).ends_with(&["trixie".into(), "out.tar".into(), "deb uri trixie main".into()]));
}

#[test]
fn names_that_debian_never_gave_are_refused() {
    for name in ["", "x", "-o", "a b", "a,b", "git;reboot", "?essential", "Git"] {
        assert!(matches!(call::check(&debian(&[name])), Err(BaseError::Package(_))), "{name}");
    }
    assert!(call::check(&debian(&["g++", "libssl3t64", "python3.13"])).is_ok());
    let named = Debian { suite: "../x".into(), ..debian(&[]) };
    assert!(matches!(call::check(&named), Err(BaseError::Suite(_))));
}

#[test]
fn a_users_range_is_found_by_name_and_by_number() {
    assert_eq!(login("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n", 1000).as_deref(), Some("ann"));
    assert!(has_range("ann:100000:65536\n", "ann", 1000));
    assert!(has_range("1000:100000:65536\n", "ann", 1000));
    assert!(!has_range("bob:100000:65536\nann:1:10\n", "ann", 1000));
}

#[test]
fn each_refusal_has_its_exit_code_and_most_have_a_remedy() {
    let missing = BaseError::Missing { program: "mmdebstrap" };
    assert_eq!((missing.exit_kind().code(), missing.hint().as_deref()), (6, Some("`apt-get install mmdebstrap`")));
    let range = BaseError::NoRange { user: "ann".into(), file: "/etc/subuid" };
    assert!(range.hint().is_some_and(|hint| hint.contains("usermod") && hint.contains("ann")));
    assert_eq!(BaseError::Suite("x y".into()).exit_kind().code(), 2);
}
