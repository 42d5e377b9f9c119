//! Manifests as Elixir 1.14 to 1.20 write them, made by hand.

use super::*;
use crate::determinism::normalize::Part;

const BEGAN: i64 = 1_795_346_182;
const T: i64 = 1_700_000_000;

fn options() -> NormalizeOptions<'static> {
    NormalizeOptions { mtime: T, windows: [(BEGAN, BEGAN + 60); 2], part: Part::Deps, lock: "" }
}

fn list(items: Vec<Term>) -> Term {
    if items.is_empty() { Term::Nil } else { Term::List(items, Box::new(Term::Nil)) }
}

fn atoms(names: &[&str]) -> Term {
    list(names.iter().map(|name| Term::atom(name)).collect())
}

fn bin(text: &str) -> Term {
    Term::Bin(text.as_bytes().to_vec())
}

fn tuple(items: Vec<Term>) -> Term {
    Term::Tuple(items)
}

/// `{26, Modules, Sources, Exports, Parents, CacheKey, DepsConfig, ProjectMtime, ConfigMtime}`
fn manifest(at: i64, references: &[&str], config: Term) -> Term {
    let module = tuple(vec![
        Term::atom("module"),
        Term::atom("module"),
        list(vec![bin("lib/a.ex")]),
        bin("digest"),
        Term::atom("false"),
        Term::Int(at),
    ]);
    let external = tuple(vec![bin("VERSION"), tuple(vec![Term::Int(at - 90_000), Term::Int(6)]), bin("digest")]);
    let missing = tuple(vec![bin("gone"), tuple(vec![Term::Int(0), Term::Int(0)]), Term::atom("nil")]);
    let compile_env = list(vec![tuple(vec![Term::atom("a"), atoms(&["y", "x"]), Term::Int(BEGAN + 1)])]);
    let source = tuple(vec![
        Term::atom("source"),
        Term::Int(231),
        Term::Int(at - 90_000),
        bin("digest"),
        atoms(references),
        Term::Nil,
        atoms(references),
        compile_env,
        list(vec![missing, external]),
        Term::Nil,
        Term::Nil,
        atoms(&["Elixir.Z", "Elixir.A"]),
    ]);
    let deps_config = Term::Map(vec![
        (Term::atom("local"), Term::Nil),
        (Term::atom("config"), config),
        (Term::atom("lock"), list(vec![bin("lock")])),
        (Term::atom("dbg"), tuple(vec![Term::atom("Elixir.Macro"), Term::atom("dbg"), Term::Nil])),
    ]);
    tuple(vec![
        Term::Int(26),
        Term::Map(vec![(Term::atom("Elixir.A"), module)]),
        Term::Map(vec![(bin("lib/a.ex"), source)]),
        Term::Map(vec![]),
        Term::Nil,
        tuple(vec![Term::Nil, list(vec![bin("lib")]), bin("/app"), Term::atom("false")]),
        deps_config,
        Term::Int(at),
        Term::Int(EARLIEST),
    ])
}

fn normal_term(name: &str, term: &Term, part: Part) -> (Term, bool) {
    let options = NormalizeOptions { part, ..options() };
    let manifest = normalized(name, &etf::encode(term), &options).expect("a manifest");
    (etf::decode(&manifest.bytes).expect("a term"), manifest.scrubbed)
}

fn field(term: &Term, position: usize) -> &Term {
    match term {
        Term::Tuple(fields) => &fields[position],
        Term::Map(pairs) => &pairs[position].1,
        Term::List(items, _) => &items[position],
        other => panic!("no fields in {other:?}"),
    }
}

#[test]
fn two_compilations_leave_one_manifest() {
    let first = manifest(BEGAN, &["Elixir.Kernel", "lists"], Term::Nil);
    let second = manifest(BEGAN + 30, &["lists", "Elixir.Kernel"], Term::Nil);
    assert_ne!(first, second);
    assert_eq!(normal_term("compile.elixir", &first, Part::Build), normal_term("compile.elixir", &second, Part::Build));
}

#[test]
fn times_are_the_trees_and_nothing_else_is() {
    let (term, _) = normal_term("compile.elixir", &manifest(BEGAN, &["k"], Term::Nil), Part::Build);
    assert_eq!(*field(&term, 0), Term::Int(26));
    assert_eq!((field(&term, 7), field(&term, 8)), (&Term::Int(T), &Term::Int(T)));
    assert_eq!(*field(field(field(&term, 1), 0), 5), Term::Int(T));
    let source = field(field(&term, 2), 0);
    assert_eq!((field(source, 1), field(source, 2)), (&Term::Int(231), &Term::Int(T)));
    let external = field(source, 8);
    assert_eq!(*field(field(external, 1), 1), tuple(vec![Term::Int(T), Term::Int(6)]));
    assert_eq!(
        *field(field(external, 0), 1),
        tuple(vec![Term::Int(0), Term::Int(0)]),
        "0 says that the file is missing"
    );
}

#[test]
fn values_and_orders_of_the_user_stay() {
    let config = list(vec![Term::Int(BEGAN + 2), bin("s")]);
    let before = manifest(BEGAN, &["k"], config.clone());
    let (after, _) = normal_term("compile.elixir", &before, Part::Build);
    let compile_env = |term: &Term| field(field(field(term, 2), 0), 7).clone();
    assert_eq!(compile_env(&after), compile_env(&before));
    let modules = |term: &Term| field(field(field(term, 2), 0), 11).clone();
    assert_eq!(modules(&after), modules(&before));
    let Term::Map(pairs) = field(&after, 6) else { panic!("a map") };
    assert!(pairs.contains(&(Term::atom("config"), config)));
}

#[test]
fn a_dependency_forgets_the_configuration_of_its_parent() {
    let secret = list(vec![bin("hunter2")]);
    let (term, scrubbed) = normal_term("compile.elixir", &manifest(BEGAN, &["k"], secret), Part::Deps);
    assert!(scrubbed);
    let other = manifest(BEGAN, &["k"], list(vec![bin("other")]));
    assert_eq!(term, normal_term("compile.elixir", &other, Part::Deps).0);
    assert!(!etf::encode(&term).windows(7).any(|window| window == b"hunter2"));
    let Term::Map(pairs) = field(&term, 6) else { panic!("a map") };
    assert_eq!(pairs.len(), 4, "Mix reads all four keys");
    assert!(!normal_term("compile.elixir", &term, Part::Deps).1, "there is nothing left to forget");
}

#[test]
fn the_entries_of_erlang_compilers_are_a_set() {
    let entry = |name: &str| tuple(vec![bin(name), Term::Nil]);
    let manifest = |names: [&str; 2]| tuple(vec![Term::Int(1), list(names.map(entry).to_vec())]);
    for name in ["compile.erlang", "compile.yecc", "compile.leex"] {
        let (left, right) = (manifest(["b", "a"]), manifest(["a", "b"]));
        assert_eq!(normal_term(name, &left, Part::Build), normal_term(name, &right, Part::Build));
    }
}

#[test]
fn times_of_protocols_are_the_trees() {
    // [3 | {ConfigMtime, {Protocols, Impls}}]
    let manifest = |at: i64| {
        let protocols = Term::Map(vec![(Term::atom("Elixir.P"), Term::Int(at))]);
        let impls = Term::Map(vec![(Term::atom("Elixir.P.Any"), Term::atom("Elixir.P"))]);
        let metadata = tuple(vec![Term::Int(at - 90_000), tuple(vec![protocols, impls])]);
        Term::List(vec![Term::Int(3)], Box::new(metadata))
    };
    assert_eq!(normal_term("compile.protocols", &manifest(BEGAN), Part::Build).0, manifest_at_t(&manifest(T)));
}

fn manifest_at_t(manifest: &Term) -> Term {
    let Term::List(head, tail) = manifest else { panic!("an improper list") };
    let Term::Tuple(parts) = &**tail else { panic!("a tuple") };
    Term::List(head.clone(), Box::new(tuple(vec![Term::Int(T), parts[1].clone()])))
}

#[test]
fn a_manifest_of_a_future_compiler_keeps_all_but_its_times() {
    let source = tuple(vec![Term::atom("source"), Term::Int(BEGAN + 1), atoms(&["b", "a"])]);
    let unknown = tuple(vec![Term::Int(99), list(vec![source, Term::Int(5)])]);
    let expected = tuple(vec![Term::atom("source"), Term::Int(T), atoms(&["b", "a"])]);
    assert_eq!(
        normal_term("compile.future", &unknown, Part::Deps).0,
        tuple(vec![Term::Int(99), list(vec![expected, Term::Int(5)])])
    );
}

/// A manifest of a version, as its layout says: two sources that were compiled in this order and took those times.
fn manifest_of(version: i64, at: i64, names: [&str; 2]) -> Term {
    let layout = mix_manifest::elixir_layout(version).expect("a known version");
    let record = |fields: &[&str], record: &str, name: &str| {
        let value = |field: &&str| match *field {
            "record" => Term::atom(record),
            "module" => Term::atom(name),
            "source" => bin(name),
            "size" => Term::Int(BEGAN + 7),
            "mtime" | "timestamp" => Term::Int(at),
            "compile_references" => atoms(&names),
            "compile_env" => list(vec![Term::Int(BEGAN + 1)]),
            "compile_warnings" | "warnings" => list(names.map(|name| warning(name, at)).to_vec()),
            _ => Term::Nil,
        };
        tuple(fields.iter().map(value).collect())
    };
    let records = |fields: &[&str], kind: &str| {
        if version < 22 {
            return list(names.map(|name| record(fields, kind, name)).to_vec());
        }
        Term::Map(names.map(|name| (bin(name), record(fields, kind, name))).to_vec())
    };
    let value = |field: &&str| match *field {
        "version" => Term::Int(version),
        "modules" => records(layout.module, "module"),
        "sources" => records(layout.source, "source"),
        "project_mtime" | "config_mtime" => Term::Int(at),
        "cache_key" => Term::Int(BEGAN + 3),
        _ => Term::Nil,
    };
    tuple(layout.manifest.iter().map(value).collect())
}

/// A warning from the body of a module, which a temporary module evaluated.
fn warning(name: &str, number: i64) -> Term {
    let frame = tuple(vec![Term::atom(&format!("elixir_compiler_{number}")), Term::atom("__MODULE__"), Term::Int(1)]);
    tuple(vec![bin(&format!("{name} in #PID<0.{number}.0>")), list(vec![frame])])
}

const VERSIONS: [i64; 15] = [14, 19, 20, 22, 23, 25, 26, 28, 29, 31, 32, 33, 34, 35, 37];

#[test]
fn of_every_known_version_two_compilations_leave_one_manifest() {
    for version in VERSIONS {
        let first = manifest_of(version, BEGAN, ["b", "a"]);
        let second = manifest_of(version, BEGAN + 30, ["a", "b"]);
        assert_ne!(etf::encode(&first), etf::encode(&second));
        let normalized = normal_term("compile.elixir", &first, Part::Build).0;
        assert_eq!(normalized, normal_term("compile.elixir", &second, Part::Build).0, "{version}");
        let bytes = etf::encode(&normalized);
        let count = |number: i64| {
            let encoded = etf::encode(&Term::Int(number))[1..].to_vec();
            bytes.windows(encoded.len()).filter(|window| *window == encoded).count()
        };
        assert_eq!(count(BEGAN + 7), 2, "{version}: sizes stay, though they look like times");
        assert_eq!((count(BEGAN + 1), count(BEGAN + 3)), (2, 1), "{version}: what is the user's stays");
        assert_eq!(count(BEGAN) + count(BEGAN + 30), 0, "{version}: no time of a compilation stays");
    }
}

#[test]
fn of_an_unknown_version_only_times_of_the_step_change_and_it_is_reported() {
    let Term::Tuple(mut fields) = manifest_of(20, BEGAN, ["b", "a"]) else { panic!("a tuple") };
    for version in [13, 36, 99] {
        fields[0] = Term::Int(version);
        let before = tuple(fields.clone());
        let found = normalized("compile.elixir", &etf::encode(&before), &options()).expect("a manifest");
        assert_eq!(found.unknown, Some(version));
        let names = |term: &Term| field(field(field(term, 2), 0), 1).clone();
        assert_eq!(names(&etf::decode(&found.bytes).expect("a term")), bin("b"), "no list is sorted");
        let source = |term: &Term| field(field(term, 2), 0).clone();
        let warnings = |term: &Term| field(&source(term), 9).clone();
        assert_ne!(warnings(&etf::decode(&found.bytes).expect("a term")), Term::Nil);
        assert_eq!(*field(field(field(&etf::decode(&found.bytes).expect("a term"), 1), 0), 6), Term::Int(T));
    }
    let known =
        normalized("compile.elixir", &etf::encode(&manifest_of(20, BEGAN, ["b", "a"])), &options()).expect("known");
    assert_eq!(known.unknown, None);
}

#[test]
fn a_manifest_of_a_known_version_with_other_fields_is_handled_as_unknown() {
    let Term::Tuple(mut fields) = manifest_of(26, BEGAN, ["b", "a"]) else { panic!("a tuple") };
    fields.push(Term::Nil);
    let found = normalized("compile.elixir", &etf::encode(&tuple(fields)), &options()).expect("a manifest");
    assert_eq!(found.unknown, Some(26));
}

#[test]
fn an_unknown_version_keeps_no_secret_of_the_parent() {
    let Term::Tuple(mut fields) = manifest(BEGAN, &["k"], list(vec![bin("hunter2")])) else { panic!("a tuple") };
    fields[0] = Term::Int(99);
    let found = normalized("compile.elixir", &etf::encode(&tuple(fields)), &options()).expect("a manifest");
    assert!(found.scrubbed && found.unknown == Some(99));
    assert!(!found.bytes.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn protocols_of_elixir_1_14_to_1_16_are_a_set() {
    let entry = |name: &str| tuple(vec![Term::atom(name), Term::atom("protocol"), bin("path")]);
    let manifest = |names: [&str; 2]| {
        let entries = names.map(entry).to_vec();
        list([vec![Term::Int(1)], entries].concat())
    };
    let (left, right) = (manifest(["b", "a"]), manifest(["a", "b"]));
    let normalized = normal_term("compile.protocols", &left, Part::Build).0;
    assert_eq!(normalized, normal_term("compile.protocols", &right, Part::Build).0);
    assert_eq!(mix_manifest::version(&normalized), Some(1), "the version comes first");
}
