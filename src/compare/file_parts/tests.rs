//! Which parts of a file are named as different.

use super::*;

fn list(items: Vec<Term>) -> Term {
    if items.is_empty() { Term::Nil } else { Term::List(items, Box::new(Term::Nil)) }
}

fn bin(text: &str) -> Term {
    Term::Bin(text.as_bytes().to_vec())
}

fn names(path: &str, left: &[u8], right: &[u8]) -> Vec<String> {
    let path = EntryPath::new(path.as_bytes());
    assert!(is_known(&path));
    differing(&of(&path, left), &of(&path, right)).names
}

fn source(warning: &str) -> Term {
    let mut fields = vec![Term::Nil; 12];
    let diagnostic = Term::Map(vec![(Term::atom("message"), bin(warning))]);
    (fields[0], fields[9]) = (Term::atom("source"), list(vec![diagnostic]));
    Term::Tuple(fields)
}

/// A manifest of Elixir 1.18.
fn manifest(warning: &str, module_time: i64, secret: &str) -> Vec<u8> {
    let module = ["module", "module", "x", "x", "false"].map(Term::atom).to_vec();
    let module = Term::Tuple([module, vec![Term::Int(module_time)]].concat());
    let config = Term::Map(vec![(Term::atom("config"), bin(secret)), (Term::atom("lock"), Term::Nil)]);
    let sources = Term::Map(vec![(bin("lib/a.ex"), source(warning))]);
    let modules = Term::Map(vec![(Term::atom("Elixir.My.A"), module)]);
    let (nil, time) = (Term::Nil, Term::Int(1));
    etf::encode(&Term::Tuple(vec![
        Term::Int(26),
        modules,
        sources,
        nil.clone(),
        nil.clone(),
        nil,
        config,
        time.clone(),
        time,
    ]))
}

#[test]
fn of_a_manifest_the_source_the_field_and_the_entry_are_named_and_no_value() {
    const PATH: &str = "app/_build/prod/lib/a/.mix/compile.elixir";
    let one = manifest("at 7", 1, "hunter2");
    assert_eq!(names(PATH, &one, &manifest("at 45", 1, "hunter2")), ["source lib/a.ex: compile_warnings 1"]);
    assert_eq!(names(PATH, &one, &manifest("at 7", 2, "hunter2")), ["module My.A: timestamp"]);
    assert_eq!(names(PATH, &one, &manifest("at 7", 1, "other")), ["deps_config config"]);
    assert!(names(PATH, &one, &one).is_empty());
    assert!(of(&EntryPath::new(PATH.as_bytes()), b"no term").is_empty());
}

#[test]
fn of_protocols_the_protocol_and_the_implementation_are_named() {
    let manifest = |time: i64| {
        let protocols = Term::Map(vec![(Term::atom("Elixir.P"), Term::Int(time))]);
        let impls = Term::Map(vec![(Term::atom("Elixir.P.Any"), Term::atom("Elixir.P"))]);
        let sets = Term::Tuple(vec![protocols, impls]);
        etf::encode(&Term::List(vec![Term::Int(3)], Box::new(Term::Tuple(vec![Term::Int(1), sets]))))
    };
    assert_eq!(names("app/.mix/compile.protocols", &manifest(1), &manifest(2)), ["protocol P"]);
    let old = |beam: &str| etf::encode(&list(vec![Term::Int(1), Term::Tuple(vec![Term::atom("Elixir.P"), bin(beam)])]));
    assert_eq!(names("app/.mix/compile.protocols", &old("a"), &old("b")), ["entry P"]);
}

#[test]
fn of_app_and_rel_files_the_properties_are_named() {
    let app = |vsn: &str, env: &str| {
        format!(
            "% made\n{{application,shop,\n [{{vsn,\"{vsn}}}\"}},\n  {{'env',[{{a,{env}}},{{b,$}}}}]}},{{modules,[]}}]}}.\n"
        )
    };
    let one = app("1", "x");
    assert_eq!(names("ebin/shop.app", one.as_bytes(), app("2", "x").as_bytes()), ["vsn"]);
    assert_eq!(names("ebin/shop.app", one.as_bytes(), app("1", "\"}\"").as_bytes()), ["env"]);
    let rel = |erts: &str, kernel: &str| {
        format!("{{release,{{\"shop\",\"1\"}},{{erts,\"{erts}\"}},[{{kernel,\"{kernel}\"}}]}}.")
    };
    assert_eq!(names("shop.rel", rel("15", "9").as_bytes(), rel("16", "10").as_bytes()), ["erts", "kernel"]);
}

#[test]
fn of_a_boot_file_the_command_is_named() {
    let boot = |name: &str| {
        let commands = list(vec![Term::Tuple(vec![Term::atom("progress"), Term::atom(name)])]);
        etf::encode(&Term::Tuple(vec![Term::atom("script"), Term::Nil, commands]))
    };
    assert_eq!(names("bin/start.boot", &boot("a"), &boot("b")), ["command 1 progress"]);
}

#[test]
fn of_a_module_the_functions_and_attributes_are_named() {
    let beam = |value: i64, attribute: i64| {
        let name = Term::Tuple(vec![Term::atom("luck"), Term::Int(0)]);
        let definition = Term::Tuple(vec![name, Term::atom("def"), Term::Nil, Term::Int(value)]);
        let definitions = Term::Map(vec![(Term::atom("definitions"), list(vec![definition]))]);
        let data = Term::Tuple(vec![Term::atom("elixir_v1"), definitions, Term::Nil]);
        let info = etf::encode(&Term::Tuple(vec![Term::atom("debug_info_v1"), Term::atom("elixir_erl"), data]));
        let attributes = [("vsn", value), ("kind", attribute)];
        let pair = |(name, value): (&str, i64)| Term::Tuple(vec![Term::atom(name), list(vec![Term::Int(value)])]);
        let attributes = etf::encode(&list(attributes.map(pair).to_vec()));
        let mut body = b"BEAM".to_vec();
        for (name, data) in [(b"Attr", attributes), (b"Dbgi", info)] {
            body.extend_from_slice(name);
            body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
            body.extend_from_slice(&data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        [b"FOR1", &u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
    };
    assert_eq!(names("Elixir.A.beam", &beam(1, 1), &beam(2, 1)), ["function luck/0"]);
    assert_eq!(names("Elixir.A.beam", &beam(1, 1), &beam(1, 2)), ["attribute kind"]);
}

#[test]
fn only_some_parts_are_named_and_the_others_counted() {
    let parts = |value: &[u8]| (0..11).map(|n| (format!("part {n:02}"), Digest::of(value))).collect::<Parts>();
    let found = differing(&parts(b"a"), &parts(b"b"));
    assert_eq!((found.names.len(), found.more), (8, 3));
    assert!(found.to_string().ends_with("`part 07` and 3 more"), "{found}");
    assert_eq!(DifferingParts::default().to_string(), "");
}
