//! Targets for the file formats of Erlang, Elixir and Mix, and for what git leaves in a dependency.

use std::io::Write as _;

use phial::determinism::normalize::fuzz as parsers;
use phial::elixir::etf::{self, Term};
use phial::elixir::{beam, hex_marker, mix_lock};

/// The most that is unzipped of a module here, in bytes.
const LIMIT: u64 = 1 << 20;

fn text(text: &str) -> Term {
    Term::Bin(text.as_bytes().to_vec())
}

fn list(items: Vec<Term>) -> Term {
    if items.is_empty() { Term::Nil } else { Term::List(items, Box::new(Term::Nil)) }
}

fn atoms(names: &[&str]) -> Term {
    list(names.iter().map(|name| Term::atom(name)).collect())
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("a vector");
    packed.finish().expect("a vector")
}

fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a seed is small").to_be_bytes()
}

/// Every tag, a compressed term, one that is nested too deeply, counts that lie, an atom in Latin-1, and a marker of Hex.
pub(crate) fn terms() -> Vec<Vec<u8>> {
    let every = Term::Tuple(vec![
        Term::Map(vec![(Term::atom("k"), list(vec![Term::Int(1 << 40), Term::Str(vec![1]), Term::Int(-1)]))]),
        Term::Opaque(vec![113, 119, 1, b'm', 119, 1, b'f', 97, 1]),
        Term::Bits(vec![1, 2], 4),
        Term::Big(1, vec![5; 12]),
        Term::Float([64, 9, 33, 251, 84, 68, 45, 24]),
        Term::List(vec![Term::Int(1)], Box::new(Term::Int(2))),
        list((0..20).map(Term::Int).collect()),
        text("binary"),
    ]);
    let bytes = etf::encode(&every);
    let compressed = [&[131, 80][..], &word(bytes.len() - 1), &zlib(&bytes[1..])].concat();
    let raw: [&[u8]; 12] = [
        &[131, 108, 255, 255, 255, 255, 106],
        &[131, 116, 0, 0, 0, 2, 97, 1, 97, 2, 97, 1, 97, 3],
        &[131, 111, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 128, 0],
        &[131, 100, 0, 3, 0xe9, b'a', 0xff],
        &[131, 115, 1, 0xe9],
        &[131, 105, 0, 0, 0, 1, 106],
        &[131, 88, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[131, 90, 0, 2, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[131, 112, 0, 0, 0, 6, 1, 2],
        &[131, 120, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[131, 118, 0, 2, 0xc3, 0xa9],
        &[131, 98, 255, 255, 255, 254],
    ];
    let pairs =
        [("name", "a"), ("version", "1.0.0"), ("inner_checksum", "aa"), ("outer_checksum", "bb"), ("repo", "r")];
    let mut pairs: Vec<(Term, Term)> = pairs.map(|(key, value)| (Term::atom(key), text(value))).into();
    pairs.push((Term::atom("managers"), atoms(&["mix", "rebar3"])));
    let version = Term::Tuple(vec![Term::atom("hex"), Term::Int(2), Term::Int(0)]);
    let marker = etf::encode(&Term::Tuple(vec![version, Term::Map(pairs)]));
    let deep = [&[131][..], &[104, 1].repeat(500), &[106]].concat();
    raw.iter().map(|bytes| bytes.to_vec()).chain([bytes, compressed, marker, deep]).collect()
}

/// The canonical bytes of a term decode to a term with the same canonical bytes. Hex's marker is such a term.
pub(crate) fn etf(bytes: &[u8]) {
    let Ok(term) = etf::decode(bytes) else { return assert_eq!(hex_marker::parse(bytes), None) };
    let canonical = etf::encode(&term);
    let again = etf::decode(&canonical).expect("what was written");
    assert_eq!(etf::encode(&again), canonical);
    assert_eq!(etf::decode(&etf::encode(&again)).as_ref(), Ok(&again), "a canonical term is read as it was written");
    assert_eq!(hex_marker::parse(&canonical), hex_marker::parse(bytes));
}

fn module(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"BEAM".to_vec();
    for (name, data) in chunks {
        body.extend_from_slice(&[&name[..], &word(data.len()), data].concat());
        body.resize(body.len().next_multiple_of(4), 0);
    }
    [&b"FOR1"[..], &word(body.len()), &body].concat()
}

/// Modules with both forms of the table of atoms, with literals, compressed or not, gzipped, and cut.
pub(crate) fn modules() -> Vec<Vec<u8>> {
    let old = [&2_i32.to_be_bytes()[..], b"\x02ab\x03def"].concat();
    let new = [&(-2_i32).to_be_bytes()[..], &[2 << 4], b"ab", &[0b0000_1000, 4], b"long"].concat();
    let literal = etf::encode(&Term::Tuple(vec![Term::atom("a"), Term::Int(1)]));
    let table = [&word(1)[..], &word(literal.len()), &literal].concat();
    let plain = [&[0; 4], &table[..]].concat();
    let packed = [&word(table.len())[..], &zlib(&table)].concat();
    let lying = [&[255; 4], &zlib(&[0; 4096])[..]].concat();
    let whole = module(&[(b"AtU8", &new), (b"LitT", &packed), (b"Code", b"x")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).expect("a vector");
    vec![
        module(&[(b"AtU8", &old), (b"LitT", &plain)]),
        whole[..whole.len() - 4].to_vec(),
        module(&[(b"LitT", &lying)]),
        gzip.finish().expect("a vector"),
        whole,
    ]
}

/// Chunks are parts of the file, and what is found in them is no longer than they are.
pub(crate) fn beam(bytes: &[u8]) {
    let Ok(plain) = beam::unzipped(bytes, LIMIT) else { return };
    assert!(plain.len() <= bytes.len().max(usize::try_from(LIMIT).expect("a small number")));
    let mut sum = 12;
    let mut is_cut = false;
    for chunk in beam::chunks(&plain).into_iter().flatten() {
        assert!(!is_cut, "nothing follows a truncated chunk");
        let Ok(chunk) = chunk else {
            is_cut = true;
            continue;
        };
        sum += 8 + chunk.data.len();
        let mut length = 4;
        let whole = beam::each_atom(chunk.data, |atom| length += 1 + atom.len());
        assert!(length <= chunk.data.len().max(4), "{whole:?}");
        let _ = beam::each_literal(chunk.data, |term| assert!(etf::decode(&etf::encode(term)).is_ok()));
    }
    assert!(sum <= plain.len().max(12), "chunks are parts of the file");
    if plain.len() >= 12 && plain.len() == sum.next_multiple_of(4) && !is_cut && beam::has_whole_size(&plain) {
        assert!(plain.starts_with(b"FOR1") || sum == 12);
    }
}

/// Locks of Hex before and after 2.0, of git, of a path, and damaged lines.
pub(crate) fn locks() -> Vec<Vec<u8>> {
    let lock = r#"%{
  "a": {:hex, :a_b, "1.0.0-rc.1", "aa", [:make, :rebar3], [{:x, "~> 1.0", [hex: :x, repo: "hexpm", optional: true]}], "hexpm:team", "bb"},
  "c": {:git, "https://u:p@host/c.git", "0123", [tag: "v1"]},
  "old": {:hex, :old, "0.1.0", "ee", [:mix], []},
  "p": {:path, "x"},
}"#;
    let damaged = [
        r#""a": {:hex, :a, ""#,
        r#""": {:, "#,
        r#""b": {:git, "u", "}"#,
        "\"c\": {:hex, :\u{e9}, \"1\", \"\", [], [], \"\", \"\"}",
    ];
    [lock].into_iter().chain(damaged).map(|text| text.as_bytes().to_vec()).collect()
}

/// Whatever is found is a part of its line, and a Hex package is an entry.
pub(crate) fn mix_lock(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let entries: Vec<_> = mix_lock::entries(&text).collect();
    for entry in &entries {
        assert!(!entry.line.contains('\n') && text.contains(entry.line));
        assert!(entry.line.starts_with(&format!("\"{}\": {{:{}, ", entry.app, entry.scm)), "{entry:?}");
        assert!(entry.version().is_none_or(|version| entry.line.contains(version) && !version.contains('"')));
        let again: Vec<_> = mix_lock::entries(entry.line).collect();
        assert_eq!(again, [*entry], "a line is read alone as it is in its file");
    }
    for (app, package) in mix_lock::hex_packages(&text) {
        let is_it = |entry: &mix_lock::LockEntry<'_>| entry.app == app && entry.line.contains(&package.name);
        assert!(entries.iter().any(|entry| entry.scm == "hex" && is_it(entry)), "{app}: {package:?}");
    }
}

/// Manifests as Elixir 1.18 and its compilers of Erlang and protocols write them. The first byte selects the name.
pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let at = 1_795_346_182;
    let stat = |time, size| Term::Tuple(vec![Term::Int(time), Term::Int(size)]);
    let external = Term::Tuple(vec![text("VERSION"), stat(at - 90_000, 6), text("digest")]);
    let missing = Term::Tuple(vec![text("gone"), stat(0, 0), Term::atom("nil")]);
    let sets = || atoms(&["lists", "Elixir.Kernel"]);
    let source = Term::Tuple(vec![
        Term::atom("source"),
        Term::Int(231),
        Term::Int(at),
        text("digest"),
        sets(),
        Term::Nil,
        sets(),
        list(vec![Term::Int(at + 1)]),
        list(vec![missing, external]),
        sets(),
        Term::Nil,
        atoms(&["Elixir.Z", "Elixir.A"]),
    ]);
    let module = Term::Tuple(vec![
        Term::atom("module"),
        Term::atom("module"),
        list(vec![text("lib/a.ex")]),
        text("digest"),
        Term::atom("false"),
        Term::Int(at),
    ]);
    let config = ["local", "lock", "config", "dbg"].map(|key| (Term::atom(key), list(vec![text("secret")])));
    let elixir = Term::Tuple(vec![
        Term::Int(26),
        Term::Map(vec![(Term::atom("Elixir.A"), module)]),
        Term::Map(vec![(text("lib/a.ex"), source)]),
        Term::Map(config.into()),
        Term::Int(at),
    ]);
    let entry = |name: &str| Term::Tuple(vec![text(name), Term::Nil]);
    let erlang =
        Term::Tuple(vec![Term::Int(1), list(vec![entry("b"), entry("a")]), list(vec![Term::Int(2), Term::Int(1)])]);
    let protocols = Term::Map(vec![(Term::atom("Elixir.P"), Term::Int(at))]);
    let protocols = Term::List(vec![Term::Int(3)], Box::new(Term::Tuple(vec![Term::Int(at - 90_000), protocols])));
    let other = Term::Tuple(vec![Term::Int(99), list(vec![Term::Int(at + 1), Term::Str(vec![3, 1])])]);
    [elixir, erlang, protocols, other]
        .iter()
        .zip(0..)
        .map(|(term, kind)| [&[kind], &etf::encode(term)[..]].concat())
        .collect()
}

/// The normal form of a manifest is its own normal form.
pub(crate) fn mix_manifest(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let names = ["compile.elixir", "compile.erlang", "compile.protocols", "compile.future"];
    parsers::mix_manifest(names[usize::from(*kind) % names.len()], bytes);
}

/// Configs as git writes them, with quotes, escapes, comments and every form of a section, and damaged ones.
pub(crate) fn git_configs() -> Vec<Vec<u8>> {
    let configs = [
        "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://h/r.git\n\tfetch = +refs\n",
        "[remote \"origin\"] url = \"https://u:a;b@h/#r\" ; comment\r\n",
        "\u{feff}[REMOTE \t \"origin\"]\n# url = x\nURL=\\\"a\\\\b\\\"  c # d\n",
        "[remote.origin]\nurl = a\\\nb\n[remote \"o\\rigin\"]\nurl = new",
        "[remote \"origin\"\nurl = \"a\n",
    ];
    configs.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The config that is written has the URL of the one that was read, and no control characters in it.
pub(crate) fn git_config(bytes: &[u8]) {
    let url = parsers::git_config(&String::from_utf8_lossy(bytes));
    assert!(url.is_none_or(|url| !url.is_empty() && !url.contains(char::is_control)));
}
