//! Base images over musl, which has no variable that clears memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::busybox::{busybox_base, busybox_base_with_files};
use crate::harness::skip::skip_part;
use crate::harness::{Repo, TestEnv, run};

/// Prints how many bytes of what each function of libc allocates are not zero, after memory was filled and freed.
const DIRTY: &str = r#"#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *again(size_t size) { return realloc(calloc(1, 8), size); }
static void *in_place(size_t size) { return realloc(realloc(malloc(size), 8), size); }
static void *array(size_t size) { return reallocarray(NULL, size, 1); }
static void *zeroed(size_t size) { return calloc(size, 1); }
static void *aligned(size_t size) { return aligned_alloc(64, size); }
static void *page(size_t size) { return memalign(4096, size); }
static void *posix(size_t size)
{
    void *memory;
    return posix_memalign(&memory, 64, size) ? NULL : memory;
}

static const struct { const char *name; void *(*by)(size_t); } FUNCTIONS[] = {
    {"malloc", malloc}, {"realloc", again}, {"realloc in place", in_place}, {"reallocarray", array},
    {"calloc", zeroed}, {"aligned_alloc", aligned}, {"memalign", page}, {"posix_memalign", posix},
};
static const size_t SIZES[] = {24, 100, 500, 3000, 200000};
enum { COUNT = 200 };

int main(void)
{
    static char *all[COUNT];
    for (int function = 0; function < 8; function++) {
        size_t dirty = 0;
        for (int round = 0; round < 2; round++)
            for (int size = 0; size < 5; size++) {
                for (int nth = 0; nth < COUNT; nth++) {
                    all[nth] = FUNCTIONS[function].by(SIZES[size]);
                    for (size_t at = 0; at < SIZES[size]; at++)
                        dirty += all[nth][at] != 0;
                    memset(all[nth], 0x5a, SIZES[size]);
                }
                for (int nth = 0; nth < COUNT; nth++)
                    free(all[nth]);
            }
        printf("%s %zu\n", FUNCTIONS[function].name, dirty);
    }
    char *wrong = (void *)1;
    return posix_memalign((void **)&wrong, 3, 8) == 0 || wrong != (void *)1;
}
"#;

const CLEARED: &str = "malloc 0\nrealloc 0\nrealloc in place 0\nreallocarray 0\ncalloc 0\naligned_alloc 0\nmemalign 0\nposix_memalign 0\n";

/// The program, compiled by `compiler` and linked dynamically.
fn compiled(env: &TestEnv, compiler: &str) -> PathBuf {
    let (source, program) = (env.path("dirty.c"), env.path(compiler));
    fs::write(&source, DIRTY).expect("a source");
    let mut cc = Command::new(compiler);
    cc.args(["-O1", "-fno-builtin", "-o", &program, &source]);
    run(cc).ok();
    program.into()
}

/// musl's dynamic linker, which is the whole libc.
fn musl() -> PathBuf {
    let mut names = fs::read_dir("/lib").expect("/lib").map(|entry| entry.expect("an entry").path());
    let is_linker =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-musl-"));
    names.find(is_linker).expect("musl-tools: run testdata/setup test")
}

/// What the dynamic linker of glibc loads for a program, itself included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    let list = run(ldd).ok();
    list.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// An app whose deps step runs `programs` of the repository, as they are named in its image.
fn app(env: &TestEnv, programs: &[&Path]) -> Repo {
    let repo = env.shell_app();
    let mut lines = vec![];
    for (nth, program) in programs.iter().enumerate() {
        fs::copy(program, repo.dir().join(format!("dirty-{nth}"))).expect("a program");
        lines.push(format!("./dirty-{nth} >>made;"));
    }
    let lines = lines.join(" ");
    repo.script("script/prepare_code", &format!("#!/bin/sh\nset -eu\ncase \"$1\" in build) {lines} ;; esac\n"));
    repo.write(
        "phial.toml",
        "[image]\nenvs = [\"prod\"]\ncmd = [\"cat\", \"made\"]\n[prepare]\nscript = \"script/prepare_code\"\n",
    );
    repo.commit("The second commit");
    repo
}

/// What the steps wrote.
fn made(env: &TestEnv, repo: &Repo, base: &Path, more: &[&str]) -> String {
    let (from, to) = (format!("oci:{}", base.display()), format!("oci:{}", env.path("out")));
    run(env.phial([&["build", repo.source(), "--base", &from, "--to", &to], more].concat())).ok();
    run(env.phial(["run", &to])).ok() + "\n"
}

/// The steps in the cache whose key says that memory is cleared for them.
fn keys_with_cleared_memory(env: &TestEnv) -> Vec<String> {
    let mut steps = vec![];
    for entry in fs::read_dir(env.cache().join("results")).expect("results") {
        let text = fs::read_to_string(entry.expect("a result").path()).expect("a result");
        let key = &serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["key"];
        if key["inputs"]["memory"].is_string() {
            steps.push(key["step"].as_str().expect("a name").to_owned());
        }
    }
    steps.sort();
    steps
}

#[test]
fn memory_of_a_step_over_musl_is_cleared_and_the_key_says_so() {
    for isolation in ["auto", "copy", "chroot"] {
        if isolation == "chroot" && !rustix::process::geteuid().is_root() {
            skip_part!("a chroot needs root");
            continue;
        }
        let env = TestEnv::with_empty_cache();
        let base = busybox_base_with_files(&env, &[musl()]);
        let repo = app(&env, &[&compiled(&env, "musl-gcc")]);
        assert_eq!(made(&env, &repo, &base, &["--isolation", isolation]), CLEARED, "{isolation}");
        assert_eq!(keys_with_cleared_memory(&env), ["build", "deps"]);
    }
}

#[test]
fn programs_of_glibc_run_beside_musl() {
    let env = TestEnv::with_empty_cache();
    let (of_musl, of_glibc) = (compiled(&env, "musl-gcc"), compiled(&env, "cc"));
    let base = busybox_base_with_files(&env, &[vec![musl()], libraries(&of_glibc)].concat());
    let repo = app(&env, &[&of_musl, &of_glibc]);
    assert_eq!(made(&env, &repo, &base, &[]), [CLEARED, CLEARED].concat());
}

#[test]
fn keys_over_other_bases_do_not_change() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    made(&env, &repo, &busybox_base(), &[]);
    assert_eq!(keys_with_cleared_memory(&env), [""; 0]);
}
