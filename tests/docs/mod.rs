//! The documents of the repository: their links lead somewhere, their commands run, their flags, keys, codes and paths exist,
//! and what is generated is current. `just docs` writes what is generated.

mod commands;
mod facts;
mod links;
mod markdown;
mod runner;
mod settings;
mod terminal;

use std::fs;

use phial::host::Host;

/// Whether generated parts are written, not compared.
fn writes() -> bool {
    Host::read().var("PHIAL_DOCS") == Some("write")
}

/// A file of the repository is what `make` makes of its text.
#[track_caller]
fn generated(name: &str, make: &dyn Fn(&str) -> String) {
    let path = markdown::repository().join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let expected = make(&text);
    if writes() {
        fs::write(&path, expected).unwrap_or_else(|e| panic!("{name}: {e}"));
    } else {
        assert!(text == expected, "{name} is not what `just docs` writes");
    }
}

/// The text with `part` between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
#[track_caller]
fn between(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no marker {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no marker {end}"));
    format!("{before}{begin}{part}{end}{after}")
}
