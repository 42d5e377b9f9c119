# What one can do here
default:
    @just --list --unsorted

# From a git commit to a running app and its release: base, build, start, ask it over HTTP, test, release
demo:
    testdata/setup demo
    cargo build --release --locked
    testdata/demo

# Every test: real registries, real readers, real apps (makes the Elixir base first, once)
test:
    testdata/setup test
    testdata/run-tests

# Format and lints; `cargo deny` where it is installed (the tests hold the bans, sources and licences of deny.toml without it)
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; fi

# The Elixir base of the tests, as an OCI layout in target/fixtures/elixir-base
base:
    testdata/setup demo
    cargo build --locked
    PHIAL_CACHE_DIR="$PWD/target/fixtures/cache" testdata/elixir-base target/debug/phial target/fixtures/elixir-base

# One commit built in every way that must not matter, each three times with all cores busy: cells, digests, seconds
matrix times="3":
    testdata/setup test
    cargo build --release --locked
    PHIAL_MATRIX={{times}} cargo test --locked --test phial -- build_matrix:: --nocapture --test-threads 1

# Each app over many bases: digests, verify, a start as a user who owns nothing, tests (`just matrix-bases trixie+home 1.20.4`)
matrix-bases *bases:
    testdata/setup test
    cargo build --release --locked
    testdata/matrix-bases target/release/phial target/matrix-bases {{bases}}

# A push of 300 MB, killed at so many moments, in all of which no tag names half an image
kills times="50":
    testdata/setup test
    PHIAL_TEST_KILLS={{times}} cargo test --locked --test phial -- registry::interrupted_push --nocapture

# The golden digests of a new format version
golden:
    PHIAL_GOLDEN=write cargo test --locked --test phial -- golden::

# What is generated in the documents: the keys of phial.toml, their JSON schema, the terminal session of the README
docs:
    testdata/setup test
    PHIAL_DOCS=write cargo test --locked --test phial -- docs::

# Packing, unpacking, starting, rebuilding, pushing and pulling, beside other tools on the same trees; rebuilding with a full store
bench:
    testdata/setup test
    cargo build --release --locked
    testdata/bench
    testdata/bench-store
    testdata/bench-registry

# Mutants that the unit tests of their module do not catch (cargo-mutants): of `layers`, or of modules of `src/` (`just mutants image recipe`)
mutants *modules:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ -z "{{modules}}" ]; then
        # The skipped tests repeat what others test, many times or at full size.
        exec cargo mutants --package phial-layers --jobs 2 --output target/mutants -- --lib --test layers -- \
            --skip however_many_workers --skip random_bytes --skip more_links_than
    fi
    for module in {{modules}}; do
        path="${module//:://}"
        cargo mutants --package phial --file "src/$path.rs" --file "src/$path/**" --jobs 2 \
            --output "target/mutants/$module" -- --lib "$module::"
    done

# Mutants in the lines of `src/` that differ from a commit, and all unit tests on each
mutants-diff base="origin/main":
    git diff "{{base}}" -- 'src/*.rs' > target/mutants.diff
    cargo mutants --package phial --in-diff target/mutants.diff --jobs 2 --output target/mutants/diff -- --lib

# libFuzzer on one target (`just fuzz layer-list 3600`) or on each in turn, guided by coverage, on stable Rust; the corpus is kept in target/fuzz
fuzz target="" seconds="3600":
    #!/usr/bin/env bash
    set -euo pipefail
    counters="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    counters+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
    counters+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
    host=$(rustc -vV | sed -n 's/^host: //p') # with --target, build scripts get no counters
    RUSTFLAGS="$counters" cargo build --locked --package phial-fuzz --features libfuzzer --bin libfuzzer --profile fuzz \
        --target "$host" --target-dir target/fuzz
    seeds="cargo run --quiet --locked --package phial-fuzz --bin seeds"
    $seeds target/fuzz/corpus
    for target in $([ -n "{{target}}" ] && echo "{{target}}" || $seeds); do
        echo "== $target"
        PHIAL_FUZZ_TARGET="$target" "target/fuzz/$host/fuzz/libfuzzer" -max_total_time={{seconds}} -timeout=10 -rss_limit_mb=2048 \
            -print_final_stats=1 -artifact_prefix="target/fuzz/$target-" "target/fuzz/corpus/$target"
    done
