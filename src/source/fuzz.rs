//! Entry points of the fuzz targets into the parsers of this module: a function takes anything, and panics if a property that must
//! hold does not.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

use super::attributes::Attributes;
use super::gitmodules::{self, SubmoduleSection};

/// The attributes of a file: lines that say nothing of those that are looked for do not count.
pub fn git_attributes(text: &[u8], path: &[u8]) {
    let values = |is_reduced: bool| {
        let mut attributes = Attributes::default();
        attributes.add(b"", text).and_then(|()| attributes.add(b"a/", text))?;
        let is_relevant = !is_reduced || attributes.retain_relevant();
        attributes.of(path).map(|values| (values, is_relevant))
    };
    let (Ok((all, _)), Ok((reduced, is_relevant))) = (values(false), values(true)) else { return };
    assert_eq!(all, reduced);
    assert!(is_relevant || (all.filter.is_none() && all.encoding.is_none()), "{all:?}");
}

/// The submodules of a `.gitmodules`: what is written of them is read as the same, and no name leads out of a directory.
pub fn git_modules(text: &str) {
    let Some(modules) = gitmodules::parse(text) else { return };
    let written: String = modules.iter().map(section).collect();
    assert_eq!(gitmodules::parse(&written).as_ref(), Some(&modules), "{written}");
}

fn section(module: &SubmoduleSection) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    assert!(!module.name.split('/').any(|part| part == ".."), "{module:?}");
    let fields = [("path", &module.path), ("url", &module.url), ("update", &module.update)];
    let lines = fields.map(|(key, value)| value.as_ref().map(|value| format!("\t{key} = \"{}\"\n", quoted(value))));
    format!("[submodule \"{}\"]\n{}", quoted(&module.name), lines.into_iter().flatten().collect::<String>())
}
