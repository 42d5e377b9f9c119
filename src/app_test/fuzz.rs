//! Entry points of the fuzz targets into the parsers of this module: a function takes anything, and panics if a property that must
//! hold does not.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

use super::exunit::SummaryLines;
use super::junit;

/// A report that tests wrote: the report that is made of its suites has the same suites, with the same counts.
pub fn junit(report: &str) {
    let suites = junit::read(report);
    assert!(suites.elements.iter().all(|element| element.starts_with('<') && element.ends_with('>')), "{suites:?}");
    let merged = junit::read(&junit::merge([&suites].into_iter()));
    assert!(merged.is_complete, "{suites:?}");
    assert_eq!((merged.elements, merged.counts), (suites.elements, suites.counts));
}

/// The output of `mix test`: the counts are the same in whatever pieces it comes.
pub fn exunit(output: &[u8]) {
    let counts = |length: usize| {
        let mut lines = SummaryLines::default();
        output.chunks(length).for_each(|piece| lines.push(piece));
        lines.counts()
    };
    assert_eq!(counts(output.len().max(1)), counts(3));
}
