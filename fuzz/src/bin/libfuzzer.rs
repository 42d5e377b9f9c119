//! Runs the target named by `PHIAL_FUZZ_TARGET` under libFuzzer; `just fuzz` builds it with coverage counters.

#![no_main]

use std::sync::OnceLock;

use phial_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

#[expect(clippy::disallowed_methods, reason = "libFuzzer parses the arguments")]
fn target() -> &'static Target {
    let name = std::env::var("PHIAL_FUZZ_TARGET").expect("the name of a target in PHIAL_FUZZ_TARGET");
    phial_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target `{name}`"))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.get_or_init(target).run)(bytes));
