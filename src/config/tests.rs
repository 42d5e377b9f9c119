//! What each setting may hold, what a plan makes of it, and what an error says.

use std::collections::BTreeSet;

use phial_layers::{Compression, Digest};

use super::checks::{check_env, check_host, check_path, check_variable};
use super::*;
use crate::error::{ExitKind, UserError as _};

fn base() -> BuildFlags {
    BuildFlags { base: Some("r.example/elixir:1".into()), ..BuildFlags::default() }
}

fn build(
    toml: &str,
    origin: SettingsOrigin,
    lock: Option<&LockFile>,
    flags: &BuildFlags,
) -> Result<BuildPlan, ConfigError> {
    BuildPlan::new(parse("phial.toml", toml)?, origin, lock, flags, "shop")
}

fn test(toml: &str) -> Result<TestPlan, ConfigError> {
    TestPlan::new(&parse("phial.toml", toml)?.test, &TestFlags::default())
}

#[test]
fn each_name_follows_the_rules_of_its_kind() {
    type Check = fn(&str, &str) -> Result<(), ConfigError>;
    let env: Check = |_, name| check_env(name, &["taken".to_owned()]);
    let long = "a".repeat(63);
    let rows: [(Check, &[&str], &[&str]); 4] = [
        (env, &["prod", "a1_b", "x"], &["", "Prod", "1a", "_a", "a-b", "aB", "a b", "taken"]),
        (check_variable, &["A", "_A1", "a_B"], &["", "1A", "A-B", "A=B", "A B", "\u{c4}"]),
        (check_host, &["db", "db-1", "1", &long], &["", "-a", "a-", "Db", "a_b", "a.b", &format!("{long}a")]),
        (check_path, &["a", "a/b", "a/./b", "...", "a..b"], &["", "/a", "..", "a/../b", "./..", "a\0b"]),
    ];
    for (check, good, bad) in rows {
        assert!(good.iter().all(|name| check("key", name).is_ok()), "{good:?}");
        for name in bad {
            let error = check("key", name).expect_err(name);
            assert!(error.to_string().contains(" is `") && error.exit_kind() == ExitKind::Usage, "{name}: {error}");
        }
    }
}

#[test]
fn a_setting_that_changes_the_image_changes_the_digest_and_no_other_does() {
    let digest = |toml: &str| build(toml, SettingsOrigin::Caller, None, &base()).unwrap().digest();
    let changing = [
        "[image]\nenvs = ['prod']",
        "[image]\nentrypoint = ['a']",
        "[image]\ncmd = ['a']",
        "[image]\nuser = 'a'",
        "[image]\nenv = { A = 'b' }",
        "[image]\nlabels = { a = 'b' }",
        "[image]\ncompression = 'zstd'",
        "[prepare]\nscript = 'a'",
        "[prepare]\ninputs = ['a']",
        "[prepare]\nnetwork = 'none'",
        "[prepare]\nclock = 'real'",
        "[prepare]\nstrict = true",
        "[prepare]\nenv = { A = 'b' }",
        "[prepare]\npass = ['A']",
        "[prepare]\nlockfile = 'locks/prod.lock'",
        "[prepare]\nhex = '2.0.6'",
        "[image]\nroot = 'apps/a'",
        "[image]\ninclude = ['shared']",
        "[source]\nlfs = false",
        "[source]\nsubmodules = false",
    ];
    let digests: BTreeSet<Digest> = changing.into_iter().chain([""]).map(digest).collect();
    assert_eq!(digests.len(), changing.len() + 1);
    for same in [
        "[image]\nname = 'r.example/a'\nbase = 'r.example/b'",
        "[prepare]\nranges = true\nnetwork = 'host'\nclock = 'fixed'\nstrict = false",
        "[image]\nenvs = ['staging', 'prod']\ncompression = 'gzip'\nroot = '.'",
        "[source]\nlfs = true\nsubmodules = true",
        "[test]\ncommand = 'a'",
    ] {
        assert_eq!(digest(same), digest(""), "{same}");
    }
}

#[test]
fn a_plan_has_the_defaults_and_flags_win() {
    let plan = |toml: &str, flags: &BuildFlags| build(toml, SettingsOrigin::Caller, None, flags).unwrap().prepare;
    let default = plan("", &base());
    assert_eq!(
        (default.network, default.clock, default.compression),
        (NetworkAccess::Host, ClockSetting::Fixed, Compression::Gzip)
    );
    assert!(!default.strict && !default.ranges);
    let toml = "[prepare]\nnetwork = 'none'\nclock = 'real'\nstrict = true\nranges = true\n[image]\ncompression = 'zstd'\nenvs = []";
    let set = plan(toml, &base());
    assert_eq!((set.network.as_str(), set.clock.as_str(), set.compression), ("none", "real", Compression::Zstd));
    assert!(set.strict && set.ranges && set.recipe.envs == ["staging", "prod"]);
    let flags = BuildFlags { network: Some(NetworkAccess::Host), compression: Some(Compression::None), ..base() };
    let flagged = plan(toml, &flags);
    assert_eq!((flagged.network.as_str(), flagged.compression), ("host", Compression::None));
    assert_eq!(ClockSetting::Fixed.as_str(), "fixed");
}

#[test]
fn a_lock_pins_the_base_that_it_names_and_no_other() {
    let digest = Digest::of(b"base");
    let lock = |name: &str| LockFile { base: LockedBase { name: name.into(), digest: digest.clone() } };
    let (own, other) = (lock("r.example/elixir:1"), lock("r.example/other"));
    let pinned = |lock: Option<&LockFile>, locked| {
        build("", SettingsOrigin::Caller, lock, &BuildFlags { locked, ..base() }).map(|plan| plan.pinned)
    };
    for locked in [false, true] {
        assert_eq!(pinned(Some(&own), locked).unwrap(), Some(digest.clone()));
    }
    assert_eq!(pinned(Some(&other), false).unwrap(), None);
    assert_eq!(pinned(None, false).unwrap(), None);
    let refused = |lock| pinned(lock, true).unwrap_err();
    assert!(refused(Some(&other)).to_string().ends_with("pins `r.example/other`, not `r.example/elixir:1`"));
    assert!(refused(None).to_string().ends_with("does not exist"));
    assert!(refused(None).hint().unwrap().contains("phial lock"));
}

#[test]
fn settings_of_others_do_not_say_where_the_image_goes() {
    let toml = "[image]\nname = 'r.example/theirs'";
    for (origin, whose) in
        [(SettingsOrigin::Url, "fetched commit"), (SettingsOrigin::Image, "the image's `phial.toml`")]
    {
        let checked = |toml: &str, flags: &BuildFlags| {
            build(toml, origin, None, flags).unwrap().check_places_are_the_callers(flags)
        };
        let error = checked(toml, &base()).unwrap_err();
        assert!(error.to_string().contains(whose) && error.to_string().contains("`r.example/theirs`"), "{error}");
        assert!(error.hint().unwrap().contains("--to r.example/theirs"));
        assert!(checked(toml, &BuildFlags { to: vec!["oci:out".into()], ..base() }).is_ok());
        assert!(checked("", &base()).is_ok(), "the default is a layout here");
    }
    let own = build(toml, SettingsOrigin::Caller, None, &base()).unwrap();
    assert!(own.check_places_are_the_callers(&base()).is_ok());
    assert_eq!(own.targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["r.example/theirs"]);
}

#[test]
fn the_variables_that_steps_see_are_each_named_once() {
    let flags = BuildFlags { pass: vec!["TWO".into(), "ONE".into()], ..base() };
    let plan = build("[prepare]\npass = ['ONE', 'HEX_MIRROR', 'ONE']", SettingsOrigin::Caller, None, &flags).unwrap();
    let seen = plan.prepare.visible();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    assert_eq!(seen[seen.len() - 2..], ["ONE", "TWO"]);
    assert!(seen.contains(&"HEX_MIRROR") && plan.prepare.withheld().is_empty());
    let theirs =
        build("", SettingsOrigin::Image, None, &BuildFlags { pass: vec!["HEX_API_KEY".into()], ..base() }).unwrap();
    assert_eq!(theirs.prepare.withheld(), ["HEX_REPOS_KEY"]);
}

#[test]
fn an_unknown_key_names_what_was_probably_meant() {
    for (toml, key, nearest) in [
        ("[image]\nnmae = 'a'", "image.nmae", Some("image.name")),
        ("[image]\nscript = 'a'", "image.script", Some("prepare.script")),
        ("[iamge]\nname = 'a'", "iamge", Some("image")),
        ("[test.services.db]\nimag = 'a'", "test.services.db.imag", Some("test.services.db.image")),
        ("[image]\nzzzzzzzzzz = 'a'", "image.zzzzzzzzzz", None),
        ("image = 'a'", "image", Some("image")),
        ("[image.name]\na = 'b'", "", None),
    ] {
        match parse("own.toml", toml).unwrap_err() {
            ConfigError::UnknownKey { file, key: found, nearest: meant } => {
                assert_eq!((file.as_str(), found.as_str(), meant.as_deref()), ("own.toml", key, nearest), "{toml}");
            }
            error => assert!(matches!(error, ConfigError::Toml { .. }) && key.is_empty(), "{toml}: {error}"),
        }
    }
    assert!(KEYS.iter().all(|key| key.default.is_some() || key.path.contains(NAME)));
    assert_eq!(KEYS[0].parts().collect::<Vec<_>>(), ["image", "name"]);
}

#[test]
fn a_settings_file_is_read_or_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    let error = read(&file).unwrap_err();
    assert!(error.to_string().contains("own.toml") && error.hint().is_none(), "{error}");
    std::fs::write(&file, "\u{feff}[image]\nbase = 'r.example/a'\n[test]\ncommand = 'x'").unwrap();
    let settings = read(&file).unwrap();
    assert_eq!((settings.image.base.as_deref(), settings.test.names()), (Some("r.example/a"), vec!["test".to_owned()]));
    std::fs::write(&file, "[image").unwrap();
    assert!(read(&file).unwrap_err().to_string().contains("own.toml` cannot be read"));
}

#[test]
fn names_of_images_and_targets_are_parsed_or_named_with_their_key() {
    assert_eq!(reference("base", "oci:dir:tag").unwrap().to_string(), "oci:dir:tag");
    let names = ["oci:out", "r.example/a:1"].map(str::to_owned);
    assert_eq!(targets(&names).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), names);
    assert!(reference("base", "A B").unwrap_err().to_string().contains("cannot use `base`"));
    let error = ConfigError::NoBase;
    assert!(error.hint().unwrap().contains("--base"));
    assert!(ConfigError::NoWorkingTree("x".into()).hint().unwrap().contains("in a clone"));
    let from_source = reference("base", "https://r.example/a").unwrap_err();
    let ConfigError::Reference { source, .. } = &from_source else { panic!("{from_source}") };
    assert_eq!(from_source.hint(), source.hint());
}

#[test]
fn a_service_is_planned_from_its_table() {
    let plan = |table: &str| {
        test(&format!("[test.services.db]\nimage = 'oci:db'\n{table}"))
            .map(|mut plan| plan.services.remove("db").unwrap())
    };
    let service = plan("port = 5432\nuser = 'postgres'\ntimeout = '2m'\ntmpfs = ['/a', '/data/x']\ncommand = ['run', 'x']\nenv = { A = 'b' }").unwrap();
    assert_eq!(
        (service.ready, service.user.as_deref(), service.timeout.as_secs()),
        (Some(ReadyCheck::Port(5432)), Some("postgres"), 120)
    );
    assert_eq!(
        (service.tmpfs, service.command.unwrap()),
        (vec!["/a".to_owned(), "/data/x".into()], vec!["run".to_owned(), "x".into()])
    );
    assert_eq!((service.image.to_string(), service.env["A"].as_str()), ("oci:db".to_owned(), "b"));
    assert_eq!(plan("").unwrap().ready, None);
    for table in [
        "tmpfs = ['/']",
        "tmpfs = ['a']",
        "tmpfs = ['/a/../b']",
        "command = []",
        "command = ['']",
        "ready = ' '",
        "env = { '1' = '' }",
        "timeout = 0",
    ] {
        assert!(plan(table).unwrap_err().to_string().contains("`test.services.db."), "{table}");
    }
}

#[test]
fn the_names_of_commands_are_those_of_records() {
    let names = |toml: &str| parse("phial.toml", toml).unwrap().test.names();
    assert_eq!(names("[test]\ncommands = ['mix test', { name = 'lint', command = 'credo' }]"), ["mix test", "lint"]);
    for bad in ["' '", "\"a\\u0007\"", "'-x'", "{ name = '', command = 'a' }"] {
        let error = test(&format!("[test]\ncommands = [{bad}]")).unwrap_err().to_string();
        assert!(error.contains("a name is a line of text") && !error.contains(char::is_control), "{error}");
    }
    let error = test("[test]\ncommands = [{ name = 'a', command = [] }]").unwrap_err();
    assert!(error.to_string().contains("it must name a program"), "{error}");
    let only = |toml: &str, name: &str| {
        let flags = TestFlags { only: vec![name.into()], ..TestFlags::default() };
        TestPlan::new(&parse("phial.toml", toml).unwrap().test, &flags).map(|plan| plan.commands)
    };
    assert_eq!(only("", "test").unwrap(), TestCommands::Default);
    assert!(
        only("", "lint").is_err() && only("[test]\nentrypoint = true", "test").unwrap() == TestCommands::Entrypoint
    );
}

#[test]
fn the_directory_of_an_app_is_below_the_root_or_the_root() {
    for root in ["", ".", "./", "apps/shop", "./apps/shop"] {
        super::check_root("--app", root).unwrap_or_else(|error| panic!("{root}: {error}"));
    }
    for bad in ["/", "/apps", "..", "apps/../..", "../apps"] {
        let error = super::check_root("--app", bad).unwrap_err().to_string();
        assert!(error.contains("--app"), "{bad}: {error}");
    }
}

#[test]
fn an_error_of_toml_shows_its_line() {
    use crate::error::UserError as _;
    let error = parse("phial.toml", "[image]\n\tcmd = [\"a\"").unwrap_err();
    assert_eq!(error.excerpt().first().map(String::as_str), Some("\tcmd = [\"a\""), "{error}");
    assert!(parse("phial.toml", "[image]\nuser = 5").is_err_and(|error| error.excerpt().len() == 2));
}
