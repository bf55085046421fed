#!/bin/bash
# What bringing a stack up takes: three machines with a systemd and an sshd each, in namespaces on one
# switch, from bare Debian to a cluster whose nodes are ready (one server, two agents, a virtual
# address). The table goes to standard output and to bench/RESULTS-fleet.md.
#
# CORACLE_BIN           a static release binary instead of building one
# BENCH_RESULTS         where the table goes instead of bench/RESULTS-fleet.md
#
# Needs root and what `./test.sh tools` brings.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

results=${BENCH_RESULTS:-bench/RESULTS-fleet.md}
musl=$(uname -m)-unknown-linux-musl
if [ -z "${CORACLE_BIN:-}" ]; then
    cargo build --release --locked --quiet --package coracle --target "$musl"
    CORACLE_BIN=$PWD/target/$musl/release/coracle
fi
export CORACLE_BIN
figures=$(cargo test --locked --quiet -p coracle --test e2e --target "$musl" -- \
    --ignored --exact --nocapture fleet::figures::figures_of_three_boards | sed -n 's/^\.*FIGURE //p')

# middle NAME: the median of what was measured under a name.
middle() {
    echo "$figures" | awk -v name="$1" '$1 == name { print $2 }' | sort -n |
        awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
size=$(($(stat -c %s "$CORACLE_BIN") >> 20))
{
    echo "# A stack from one file: what it takes"
    echo
    echo "Written by \`bench/fleet.sh\`: $(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)),"
    echo "three machines in namespaces, a binary of $size MiB, on $(date -u +%Y-%m-%d) at a load of $(cut -d' ' -f1 /proc/loadavg)."
    echo
    echo "| what | goal | measured |"
    echo "|---|---|---|"
    echo "| \`coracle up\` from bare to Ready, three boards, no packages to download | < 60 s | $(middle up_from_bare_seconds) s |"
    echo "| second run, median of 5 | < 3 s | $(middle second_run_seconds) s |"
    echo "| memory of the tool (RSS), first run | | $(middle up_memory_mib) MiB |"
    echo "| memory of the tool (RSS), second run | | $(middle second_run_memory_mib) MiB |"
    echo "| \`coracle status\` | | $(middle status_seconds) s |"
    echo "| \`coracle down\`, without a copy | | $(middle down_seconds) s |"
} | tee "$results"
