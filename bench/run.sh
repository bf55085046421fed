#!/bin/bash
# What Coracle takes and how fast it is, beside what it promises: one board with the hello
# workload and DNS in a network namespace of its own. The table goes to standard output and to
# bench/RESULTS.md, the raw figures to bench/RESULTS.txt.
#
#   bench/run.sh [STEP...]      only some of: idle pods load etcd vip
#   bench/run.sh --peer         ours and upstream's control plane in turn (bench/peer.sh), to
#                               bench/RESULTS-peer.md
#
# CORACLE_BIN           a static release binary instead of building one
# BENCH_DIR             where the data goes; a file system like the one that is meant (/var/tmp)
# BENCH_IDLE_SECONDS    how long the idle cluster is looked at (120)
# BENCH_RESULTS         where the table goes instead of bench/RESULTS.md
#
# Needs root, iproute2 and util-linux. etcd is measured where `etcd` is installed. Everything it
# makes is removed again, also after a failure; only processes that it started are ended.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

peer=
[ "${1:-}" != --peer ] || peer=-peer
results=${BENCH_RESULTS:-bench/RESULTS$peer.md}
idle_seconds=${BENCH_IDLE_SECONDS:-120}
settle_seconds=20
stop_seconds=20
pods=50
etcd_seconds=10
full_percent=74
steps=${*:-idle pods load etcd vip}
vip_kills=50
musl=$(uname -m)-unknown-linux-musl

id=$$
namespace=cor-bench-$id
cgroup=coracle-bench-$id
# State that a reboot ends belongs on a tmpfs, or its writes would be counted; /run is not always one.
tmpfs=$([ "$(stat -f -c %T /run)" = tmpfs ] && echo /run || echo /dev/shm)
run=$tmpfs/coracle-bench-$id
data=
disk=
server=
etcd=

# ended PID: waits for the end of a process of ours; fails after a while.
ended() {
    for _ in $(seq $((stop_seconds * 10))); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

# end PID: SIGTERM, and SIGKILL when that does not help.
end() {
    kill "$1" 2>/dev/null || return 0
    ended "$1" || { kill -9 "$1" 2>/dev/null && ended "$1"; } || true
}

# outliving: shims and the process for DNS of this run, by the run folder in their arguments.
outliving() {
    grep -lzx -e shim -e dns-holder /proc/[0-9]*/cmdline 2>/dev/null | while read -r file; do
        { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -q -- "$run/" || continue
        file=${file#/proc/}
        echo "${file%/cmdline}"
    done || true
}

clean_up() {
    trap - EXIT INT TERM
    [ -z "$server" ] || end "$server"
    [ -z "$etcd" ] || end "$etcd"
    [ -z "$peer" ] || stop_peer
    for pid in $(outliving); do end "$pid"; done
    awk -v run="$run/" -v data="${data:-/nonexistent}/" \
        'index($5 "/", run) == 1 || index($5 "/", data) == 1 { print $5 }' /proc/self/mountinfo |
        sort -r | while read -r mount; do umount -l "$mount" || true; done
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
    ip netns del "$namespace" 2>/dev/null || true
    rm -rf "$run" ${data:+"$data"}
}

say() { echo "==> $*" >&2; }

fail() {
    echo "error: $1" >&2
    [ ! -s "$data/server.log" ] || tail -n 20 "$data/server.log" >&2
    exit 1
}

inside() { nsenter --net="/run/netns/$namespace" -- "$@"; }

measure() { inside target/release/bench "$figures" "$@" >&2; }

# start NAME: starts the server and measures it on its way to a node that is ready.
start() {
    say "start ($1)"
    local since
    since=$(date +%s%N)
    nsenter --net="/run/netns/$namespace" -- "$CORACLE_BIN" server --data-dir "$state" \
        --run-dir "$run" --write-kubeconfig "$data/kubeconfig" --cgroup-root "/$cgroup" \
        --node-name pi1 --config "$data/config.yaml" >>"$data/server.log" 2>&1 &
    server=$!
    measure startup "$1" "$data/kubeconfig" "$server" pi1 "$since" || fail "the server does not start"
}

stop() {
    end "$server"
    server=
}

# own_disk: a file system in a file for what runs pods, since a node whose disk is nearly full
# takes none. The load on the API needs no node and stays on the disk itself.
own_disk() {
    say "little room is left: the pods get a file system of their own"
    truncate -s 8G "$data/disk.img"
    mkfs.ext4 -q -F "$data/disk.img"
    mkdir "$data/disk"
    mount -o loop "$data/disk.img" "$data/disk"
    state=$data/disk/coracle
    disk=" (pods and idle figures: in a file, through a loop device)"
}

hello() {
    say "the hello workload"
    "$CORACLE_BIN" image import --hello --data-dir "$state" --run-dir "$run" >&2
    mkdir -p "$state/server/manifests"
    cat >"$state/server/manifests/hello.yaml" <<-YAML
	apiVersion: apps/v1
	kind: Deployment
	metadata: {name: hello, namespace: default}
	spec:
	  selector: {matchLabels: {app: hello}}
	  template:
	    metadata: {labels: {app: hello}}
	    spec:
	      containers:
	      - name: hello
	        image: coracle.local/hello
	        imagePullPolicy: IfNotPresent
	        ports: [{containerPort: 8080}]
	---
	apiVersion: v1
	kind: Service
	metadata: {name: hello, namespace: default}
	spec:
	  type: NodePort
	  selector: {app: hello}
	  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
	YAML
    for _ in $(seq 300); do
        ! inside curl -fsS --max-time 1 http://127.0.0.1:30080/ >/dev/null 2>&1 &&
            ! inside curl -fsS --max-time 1 http://10.99.0.2:30080/ >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    inside kubectl --kubeconfig "$data/kubeconfig" describe deployments,pods,endpointslices >&2 || true
    fail "the hello workload does not answer"
}

# keepalived: the distribution's, or the one that the tests have unpacked.
keepalived() { command -v keepalived || echo target/tools/keepalived/usr/sbin/keepalived; }

measure_etcd() {
    command -v etcd >/dev/null || { say "etcd is not installed: no yardstick"; return 0; }
    say "etcd"
    inside etcd --data-dir "$data/etcd" --log-level error >"$data/etcd.log" 2>&1 &
    etcd=$!
    for _ in $(seq 100); do
        inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/2379' 2>/dev/null && break
        sleep 0.1
    done
    measure etcd 127.0.0.1:2379 "$etcd_seconds" || echo "etcd was not measured" >&2
    end "$etcd"
    etcd=
}

# conditions: when, of what and on what this was measured.
conditions() {
    echo "- $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "$(awk '/MemTotal/ { printf "%d MiB", $2 / 1024 }' /proc/meminfo), Linux $(uname -r)," \
        "load average at the start $load"
    echo "- data on $(df --output=fstype "$data" | tail -n 1)$disk; the load generator, over TLS, shares the cores"
}

report() {
    echo "# What Coracle measures at"
    echo
    echo "Made by \`bench/run.sh\`; a smaller figure than the promise is better where it says \`<=\`."
    echo
    conditions
    echo
    target/release/bench "$figures" report bench/promises.txt
}

[ -z "$peer" ] || . bench/peer.sh
[ "$(id -u)" = 0 ] || fail "the bench needs root, for a network namespace and containers"
if [ -z "${CORACLE_BIN:-}" ]; then
    say "building the static release binary"
    cargo build --release --locked -p coracle --target "$musl"
    CORACLE_BIN=$PWD/target/$musl/release/coracle
fi
cargo build --quiet --release --locked -p bench

load=$(cut -d ' ' -f 1 /proc/loadavg)
trap clean_up EXIT
trap 'exit 130' INT TERM
data=$(mktemp -d "${BENCH_DIR:-/var/tmp}/coracle-bench.XXXXXX")
figures=$data/figures
state=$data/coracle
[ "$(df --output=pcent "$data" | tr -dc 0-9)" -le "$full_percent" ] || own_disk
mkdir -p "$run"
: >"$data/config.yaml"
ip netns add "$namespace"
ip -n "$namespace" link set lo up
ip -n "$namespace" link add eth0 type veth peer name eth1
ip -n "$namespace" addr add 10.99.0.2/24 dev eth0
ip -n "$namespace" link set eth0 up
ip -n "$namespace" link set eth1 up
ip -n "$namespace" route add default via 10.99.0.1

if [ -n "$peer" ]; then
    compare_with_peer
    report_peer | tee "$results"
    exit
fi
echo "binary_size $(stat -c %s "$CORACLE_BIN" | awk '{ print $1 / 1e6 }')" >"$figures"
start first
hello
stop
start again
for step in $steps; do
    case $step in
    idle)
        say "idle, $idle_seconds s after $settle_seconds s to settle"
        sleep "$settle_seconds"
        measure idle "$data/kubeconfig" "$server" "$run" "$idle_seconds"
        ;;
    pods)
        say "pods"
        measure pods "$data/kubeconfig" "$server" "$run" "$pods"
        ;;
    load)
        say "load"
        # A fresh server, so that what pods have left behind is not counted.
        stop
        state=$data/load
        start load
        measure load "$data/kubeconfig" "$server" "$run"
        ;;
    etcd)
        stop
        measure_etcd
        ;;
    vip)
        say "virtual address, $vip_kills kills"
        target/release/bench "$figures" vip "$CORACLE_BIN" "${KEEPALIVED:-$(keepalived)}" \
            "$vip_kills" >&2
        ;;
    *) fail "no step is called $step" ;;
    esac || fail "step $step"
done
report | tee "$results"
cp "$figures" "${results%.md}.txt"
