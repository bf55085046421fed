#!/bin/bash
# What a cluster of three servers and an agent takes, and how long it is away when a board dies: in a
# sandbox on this machine. The table goes to standard output and to bench/RESULTS-boards.md, the raw
# figures beside it. With what is not told otherwise it takes some 20 minutes.
#
#   bench/boards.sh [STEP...]      only some of: memory idle pods kill
#
# CORACLE_BIN           a static release binary instead of building one
# BENCH_DIR             where the boards' disks are (/var/tmp)
# BENCH_IDLE_SECONDS    how long the idle cluster is looked at (600); hours are scaled from it
# BENCH_SETTLE_SECONDS  how long the cluster is left alone before (60)
# BENCH_KILLS           how often a server loses its power (20)
# BENCH_RESULTS         where the table goes instead of bench/RESULTS-boards.md
#
# Needs root, curl, kubectl, and etcd in the PATH or in target/tools. Everything it makes is removed
# again, also after a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export PATH="$PWD/target/tools/kubectl-new/usr/bin:$PATH:$PWD/target/tools/etcd/usr/bin:/usr/sbin:/sbin:$HOME/.cargo/bin"

results=${BENCH_RESULTS:-bench/RESULTS-boards.md}
idle_seconds=${BENCH_IDLE_SECONDS:-600}
kills=${BENCH_KILLS:-20}
settle_seconds=${BENCH_SETTLE_SECONDS:-60}
steps=${*:-memory idle pods kill}
servers="server-1 server-2 server-3"
# How long writes may be away, or nodes silent, before a step is given up.
patience_seconds=120
musl=$(uname -m)-unknown-linux-musl

say() { echo "==> $*" >&2; }

fail() {
    echo "error: $1" >&2
    exit 1
}

sandbox() { "$CORACLE_BIN" sandbox "$@"; }

kube() { sandbox kubectl -- --request-timeout=5s "$@"; }

set_figure() { echo "$1 $2" >>"$figures"; }

clean_up() {
    trap - EXIT INT TERM
    [ -z "$prober" ] || kill "$prober" 2>/dev/null || true
    # What was measured before a step failed is kept, and shown.
    [ ! -s "$figures" ] || cp "$figures" "${results%.md}.txt"
    [ ! -s "$figures" ] || report | tee "$results"
    sandbox down bench >&2 || true
    rm -rf "$data"
}

# board_pids NODE: our processes on a board, as this machine numbers them: the server or agent, its etcd,
# the holder of the virtual address and the process for DNS; neither the sandbox's own init nor what
# pods run.
board_pids() {
    sandbox exec "$1" -- sh -c 'ps -eo pid=,args=' >/dev/null
    for file in $(grep -l "coracle-sandbox/bench-[0-9a-f]*/$1" /proc/[0-9]*/cgroup 2>/dev/null); do
        pid=${file#/proc/}
        pid=${pid%/cgroup}
        line=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) || continue
        case $line in
        *sandbox-init*) ;;
        */coracle*\ server* | */coracle*\ vip* | */coracle*\ dns* | *etcd\ *) echo "$pid" ;;
        esac
    done
}

# sum_of NODE FIELD: a field of smaps_rollup over a board's processes, in MiB.
sum_of() {
    for pid in $(board_pids "$1"); do cat "/proc/$pid/smaps_rollup" 2>/dev/null || true; done |
        awk -v field="$2:" '$1 == field { sum += $2 } END { printf "%.1f", sum / 1024 }'
}

memory() {
    say "memory, after $settle_seconds s to settle"
    sleep "$settle_seconds"
    for node in $servers; do
        echo "$(sum_of "$node" Rss) $(sum_of "$node" Pss)"
    done | sort -n | tail -1 >"$data/memory"
    set_figure boards_server_rss "$(cut -d ' ' -f 1 "$data/memory")"
    set_figure boards_server_pss "$(cut -d ' ' -f 2 "$data/memory")"
}

written() {
    for pid in $(board_pids "$1"); do cat "/proc/$pid/io" 2>/dev/null || true; done |
        awk '$1 == "write_bytes:" { sum += $2 } END { print sum + 0 }'
}

# fsyncs NODE: what etcd says that it waited for the disk.
fsyncs() {
    sandbox exec "$1" -- curl -s --max-time 5 http://127.0.0.1:2381/metrics |
        awk '/^etcd_disk_(wal_fsync|backend_commit)_duration_seconds_count/ { sum += $2 }
             END { print sum + 0 }'
}

# wear FILE: what each server has written and synced so far.
wear() {
    for node in $servers; do echo "$node $(written "$node") $(fsyncs "$node")"; done >"$1"
}

idle() {
    say "idle, $idle_seconds s"
    wear "$data/before"
    sleep "$idle_seconds"
    wear "$data/after"
    paste -d ' ' "$data/before" "$data/after" | awk -v s="$idle_seconds" '
        { bytes = $5 - $2; syncs = $6 - $3 }
        bytes > most_bytes { most_bytes = bytes }
        syncs > most_syncs { most_syncs = syncs }
        END {
            printf "boards_idle_written_hour %.2f\n", most_bytes / 1048576 * 3600 / s
            printf "boards_idle_fsyncs_hour %.0f\n", most_syncs * 3600 / s
        }' >>"$figures"
}

# probe ADDRESS FILE: writes through ADDRESS again and again and notes when each was acknowledged.
probe() {
    while true; do
        code=$(curl -s -o /dev/null -w '%{http_code}' --max-time 1 --cacert "$data/ca.crt" \
            --cert "$data/admin.crt" --key "$data/admin.key" -X PATCH \
            -H 'Content-Type: application/merge-patch+json' -d "{\"data\":{\"at\":\"$(date +%s%N)\"}}" \
            "https://$1:6443/api/v1/namespaces/default/configmaps/probe" || true)
        [ "$code" != 200 ] || date +%s%N >>"$2"
    done
}

key() { kube config view --raw -o "jsonpath={.$1}" | base64 -d; }

keys() {
    key 'clusters[0].cluster.certificate-authority-data' >"$data/ca.crt"
    key 'users[0].user.client-certificate-data' >"$data/admin.crt"
    key 'users[0].user.client-key-data' >"$data/admin.key"
}

# percentile P: of the numbers on standard input.
percentile() { sort -n | awk -v p="$1" '{ a[NR] = $1 } END { i = int(NR * p / 100 + 0.999); print a[i < 1 ? 1 : i] }'; }

# until_true WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local what=$1 end=$((SECONDS + patience_seconds))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "waited $patience_seconds s in vain: $what"
        sleep 0.05
    done
}

nodes_are_ready() {
    [ "$(kube get nodes --no-headers 2>/dev/null | awk '$2 == "Ready"' | wc -l)" = 4 ]
}

acknowledged() { [ "$(wc -l <"$data/acknowledged")" -ge "$1" ]; }

kill_servers() {
    say "$kills power cuts of one server after the other"
    keys
    kube create configmap probe >&2 || true
    local address node round begun
    : >"$data/away"
    for round in $(seq "$kills"); do
        node=server-$((round % 3 + 1))
        # The address of another server, as an agent would use it that has turned to that one.
        address=10.87.$network.$((11 + (round + 1) % 3))
        : >"$data/acknowledged"
        probe "$address" "$data/acknowledged" &
        prober=$!
        until_true "writes through $address" acknowledged 10
        begun=$(wc -l <"$data/acknowledged")
        sandbox kill $node
        until_true "writes after the end of $node" acknowledged $((begun + 100))
        kill "$prober"
        wait "$prober" 2>/dev/null || true
        prober=
        awk 'NR > 1 { gap = ($1 - last) / 1e9; if (gap > most) most = gap } { last = $1 } END { print most }' \
            "$data/acknowledged" >>"$data/away"
        sandbox restore $node >&2
        until_true "all nodes ready again" nodes_are_ready
    done
    set_figure boards_away_p50 "$(percentile 50 <"$data/away")"
    set_figure boards_away_p99 "$(percentile 99 <"$data/away")"
}

node_is_silent() {
    [ "$(kube get node agent-1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = Unknown ]
}

pod_is_elsewhere() {
    case $(kube get pods -l app=moved \
        -o 'jsonpath={range .items[*]}{.spec.nodeName}{.status.containerStatuses[0].ready},{end}') in
    *server-3true*) ;;
    *) return 1 ;;
    esac
}

# has_image NODE: outside the figures of joining, since a debug binary makes a large image.
has_image() { sandbox exec "$1" -- coracle image import --hello >&2; }

pods() {
    say "a node dies under a pod"
    has_image agent-1
    kube label --overwrite node agent-1 moved=yes >&2
    kube apply -f - >&2 <<-YAML
	apiVersion: apps/v1
	kind: Deployment
	metadata: {name: moved, namespace: default}
	spec:
	  selector: {matchLabels: {app: moved}}
	  template:
	    metadata: {labels: {app: moved}}
	    spec:
	      nodeSelector: {moved: "yes"}
	      tolerations:
	      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
	      containers:
	      - {name: hello, image: coracle.local/hello, imagePullPolicy: IfNotPresent}
	YAML
    sandbox kubectl -- rollout status deployment/moved --timeout="${patience_seconds}s" >&2
    # Only now: where the disk is nearly full, an image that nobody uses goes after two minutes.
    has_image server-3
    kube label --overwrite node server-3 moved=yes >&2
    sandbox kill agent-1
    local from
    until_true "agent-1 being seen silent" node_is_silent
    from=$(date +%s%N)
    until_true "the pod running elsewhere" pod_is_elsewhere
    set_figure boards_pods_back "$(awk -v a="$from" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }')"
    kube delete deployment moved --wait=false >&2
    sandbox restore agent-1 >&2
    until_true "all nodes ready again" nodes_are_ready
}

report() {
    echo "# What several boards measure at"
    echo
    echo "Made by \`bench/boards.sh\`: three servers with etcd and one agent in a sandbox."
    echo
    echo "- $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
        "binary $build"
    echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores for all boards," \
        "load average at the start $load"
    echo "- idle figures are of the server (coracle and its etcd) that writes most, scaled to an hour from $idle_seconds s"
    echo
    target/release/bench "$figures" report bench/promises-boards.txt 2>/dev/null ||
        target/debug/bench "$figures" report bench/promises-boards.txt
}

[ "$(id -u)" = 0 ] || fail "the bench needs root, for network namespaces and containers"
build=release
if [ -z "${CORACLE_BIN:-}" ]; then
    say "building the static release binary"
    cargo build --release --locked -p coracle --target "$musl"
    CORACLE_BIN=$PWD/target/$musl/release/coracle
else
    case $CORACLE_BIN in */debug/*) build="debug, which is slower and larger than what ships" ;; esac
fi
[ -x target/release/bench ] || [ -x target/debug/bench ] || cargo build --quiet --locked -p bench

load=$(cut -d ' ' -f 1 /proc/loadavg)
prober=
data=$(mktemp -d "${BENCH_DIR:-/var/tmp}/coracle-boards.XXXXXX")
figures=$data/figures
export CORACLE_SANDBOX_DIR=$data/sandboxes CORACLE_SANDBOX=bench
trap clean_up EXIT
trap 'exit 130' INT TERM
say "three servers and an agent"
sandbox up bench --servers 3 --agents 1 --server-arg node-monitor-grace-period=20 \
    --wait 180s | tee "$data/up" >&2
network=$(awk '$1 == "server-1" { split($2, part, "."); print part[3] }' "$data/up")
set_figure boards_join_server "$(awk '$1 == "server-3" { print $3 }' "$data/up")"
set_figure boards_join_agent "$(awk '$1 == "agent-1" { print $3 }' "$data/up")"
for step in $steps; do
    case $step in
    memory) memory ;;
    idle) idle ;;
    kill) kill_servers ;;
    pods) pods ;;
    *) fail "no step is called $step" ;;
    esac
done
