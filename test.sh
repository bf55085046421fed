#!/bin/sh
# Every check and every test, from an empty checkout on Debian 12, as root, without questions:
#
#   1. tools      build tools by apt, test programs unpacked into target/tools
#   2. verify     format, lints, crate directions, docs (`cargo xtask verify`)
#   3. unit       unit tests and tests within one process, of every crate
#   4. build      the static binary, as it ships but not optimised
#   5. end to end the real kubectl, two versions, against that binary
#   6. fuzz       every parser that reads from the network, a minute of chance
#   7. conformance  a part of upstream's own tests against it; the first run builds them in a cache
#                 folder outside this one (CONTRIBUTING.md)
#
#   ./test.sh [STEP...]     only some of: tools verify unit build e2e fuzz conformance
#
# Nothing outside this folder is changed but for packages that are missing. CORACLE_BIN names
# another binary for steps 5 and 7; E2E_FILTER is a part of a test's name; FUZZ_SECONDS is how long
# step 6 looks for trouble.
set -u
cd "$(dirname "$0")" || exit 1
exec </dev/null

export PATH="$PWD/target/tools/bin:$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
# What the binary says of itself at /version.
CORACLE_COMMIT=$(git rev-parse HEAD 2>/dev/null) && export CORACLE_COMMIT
export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
musl=x86_64-unknown-linux-musl
summary=
failed=0
begun=$(date +%s)

if ! command -v cargo >/dev/null 2>&1; then
    echo "error: no cargo on this machine" >&2
    echo "hint: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer from https://rustup.rs" >&2
    exit 1
fi

# step NAME COMMAND...: runs a step and goes on after a failure, since the next step may tell more.
step() {
    name=$1
    shift
    echo "==> $name: $*"
    start=$(date +%s)
    if "$@"; then outcome=ok; else
        outcome=FAILED
        failed=1
    fi
    summary="$summary $name $outcome ($(($(date +%s) - start)) s),"
    [ "$outcome" = ok ]
}

target() {
    rustup target add "$musl" 2>/dev/null || rustc --print target-libdir --target "$musl" |
        xargs test -d
}

unit() {
    # For the target that ships, so that the next steps find everything built. The end-to-end tests
    # are a step of their own; the binary's unit tests are here.
    cargo test --no-fail-fast --locked --quiet --workspace --exclude coracle --target "$musl" &&
        cargo test --locked --quiet -p coracle --bins --target "$musl"
}

# e2e_of THREADS ARGUMENT...
e2e_of() {
    threads=$1
    shift
    cargo test --locked --quiet -p coracle --test e2e --target "$musl" -- \
        --test-threads="$threads" "$@"
}

e2e() {
    if [ -n "${E2E_FILTER:-}" ]; then
        e2e_of 1 "$E2E_FILTER"
        return
    fi
    e2e_of 2 --skip boards::
    single=$?
    # Several boards are enough for two cores: these tests come one after the other.
    e2e_of 1 boards:: && [ $single = 0 ]
}

# What `cargo fuzz build` does, but without a sanitizer: those need another compiler, and ours is
# safe code that checks its bounds and sums by itself.
fuzz() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    llvm=-Cllvm-args=-sanitizer-coverage
    out=$PWD/target/fuzz
    mkdir -p "$out/corpus" "$out/seeds"
    # The same versions of everything as in the binary.
    cp Cargo.lock fuzz/Cargo.lock
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module $llvm-level=4 $llvm-inline-8bit-counters \
$llvm-pc-table $llvm-trace-compares" \
        cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" \
        --target-dir "$out" || return
    CORACLE_SEEDS="$out/seeds" "$out/$host/release/network" -runs=0 "$out/seeds" 2>/dev/null
    "$out/$host/release/network" -fork=2 -max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 \
        -rss_limit_mb=1024 -dict=fuzz/network.dict -artifact_prefix="$out/" \
        "$out/corpus" "$out/seeds" >"$out/log" 2>&1
    outcome=$?
    tail -n "$([ $outcome = 0 ] && echo 3 || echo 60)" "$out/log"
    return $outcome
}

conformance() {
    CORACLE_BIN="${CORACLE_BIN:-$PWD/target/$musl/debug/coracle}" \
        cargo xtask conformance run --fast --parallel 3
}

[ $# -gt 0 ] || set -- tools verify unit build e2e fuzz conformance
for name in "$@"; do
    case $name in
    # Nothing works without its tools.
    tools) step tools tools/test-tools.sh || break ;;
    verify) step verify cargo xtask verify ;;
    unit) step target target && step unit unit ;;
    build) step target target && step build cargo build --locked --quiet -p coracle --target "$musl" ||
        break ;;
    e2e) step e2e e2e ;;
    fuzz) step fuzz fuzz ;;
    conformance) step conformance conformance ;;
    *)
        echo "error: no step is called $name" >&2
        echo "hint: tools verify unit build e2e fuzz conformance" >&2
        exit 2
        ;;
    esac
done

if [ $failed = 0 ]; then verdict=PASSED; else verdict=FAILED; fi
echo "==> $verdict:${summary%,}; $(($(date +%s) - begun)) s in all"
exit $failed
