//! Compiles the pieces of C: what is preloaded in steps (`clock.c` and `memory.c` in `src/determinism/shims`), to shared objects without
//! libc for `include_bytes!`, and what stands between libgit2 and OpenSSL (`src/source/tls.c`).

use std::env;
use std::path::PathBuf;

fn main() {
    shim("clock");
    shim("memory");
    tls();
}

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script everything by variables")]
fn shim(name: &str) {
    let source = format!("src/determinism/shims/{name}.c");
    println!("cargo:rerun-if-changed={source}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(format!("{name}.so"));
    let compiler = cc::Build::new().opt_level(2).debug(false).pic(true).get_compiler();
    let mut command = compiler.to_command();
    command.args(["-w", "-shared", "-nostdlib", "-fvisibility=hidden", "-fno-stack-protector", "-Wl,-z,now"]);
    let status = command.arg("-o").arg(&out).arg(&source).status();
    let done = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    assert!(done, "cannot compile `{source}` with `{}`: {status:?}", compiler.path().display());
}

fn tls() {
    const SOURCE: &str = "src/source/tls.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    for object in cc::Build::new().file(SOURCE).compile_intermediates() {
        println!("cargo:rustc-link-arg={}", object.display());
    }
    for name in ["global_init", "new", "wrap"] {
        println!("cargo:rustc-link-arg=-Wl,--wrap=git_openssl_stream_{name}");
    }
}
