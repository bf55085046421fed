#!/bin/sh
# Installs what is missing, builds Coracle, starts a one-board cluster and runs the hello
# workload. Run it as root on Debian 12 or newer (x86_64 or aarch64). Run again, it builds what
# has changed and changes only what differs.
#
#   ./install.sh [server|agent] [ARGUMENT...]     arguments of `coracle server` or `coracle agent`
#
# A further board joins a cluster, as an agent unless it is called a server:
#
#   ./install.sh --server https://first:6443 --token K10...     or CORACLE_SERVER and CORACLE_TOKEN
#
# With systemd the cluster becomes a service; without, it runs in the background. Folders can be
# chosen with CORACLE_DATA_DIR and CORACLE_RUN_DIR, everything else in /etc/coracle/config.yaml.
set -eu
cd "$(dirname "$0")"
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

data_dir="${CORACLE_DATA_DIR:-/var/lib/coracle}"
run_dir="${CORACLE_RUN_DIR:-/run/coracle}"
binary=/usr/local/bin/coracle
pid_file="$run_dir/server.pid"
log="journalctl -u 'coracle*'"
node_port=30080
patience_seconds=60

# What runs: what is named, and where a server to join is named, an agent.
joins=${CORACLE_SERVER:+yes}
for argument in "$@"; do
    case $argument in --server | --server=*) joins=yes ;; esac
done
role=server
[ -z "$joins" ] || role=agent
case ${1:-} in
server | agent)
    role=$1
    shift
    ;;
esac

[ "$(id -u)" = 0 ] || fail "installing needs root" "run: sudo ./install.sh"
arch=$(uname -m)
case $arch in
x86_64 | aarch64) ;;
*) fail "no Coracle for $arch" "a 64-bit system is needed: x86_64 or aarch64" ;;
esac
target="$arch-unknown-linux-musl"

missing=
for pair in gcc:gcc musl-gcc:musl-tools curl:curl protoc:protobuf-compiler; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -e /usr/include/google/protobuf/descriptor.proto ] || missing="$missing libprotobuf-dev"
if [ -n "$missing" ]; then
    echo "==> installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
command -v cargo >/dev/null 2>&1 ||
    fail "no cargo on this machine" \
        "install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer with rustup, then run this again"
rustup target add "$target" 2>/dev/null || [ -d "$(rustc --print target-libdir --target "$target")" ] ||
    fail "Rust has no $target" "run: rustup target add $target"

# A release is optimised as one piece, which takes 4 GiB on x86_64 and 10 on aarch64; with less memory it is
# done in parts and the binary becomes a quarter larger.
whole_program_kib=6291456
[ "$arch" = x86_64 ] || whole_program_kib=12582912
if [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -lt "$whole_program_kib" ]; then
    export CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
fi
# Build scripts find Debian's musl-gcc by themselves on x86_64 only; elsewhere they look for
# aarch64-linux-musl-gcc, which no package has.
export CC_aarch64_unknown_linux_musl="${CC_aarch64_unknown_linux_musl:-musl-gcc}"
echo "==> building (some minutes the first time)"
cargo build --release --locked --quiet --package coracle --target "$target"
built="${CARGO_TARGET_DIR:-target}/$target/release/coracle"

if [ -d /run/systemd/system ]; then
    echo "==> starting the service"
    "$built" install "$role" "$@"
else
    echo "==> starting in the background (no systemd here)"
    install -D -m 755 "$built" "$binary.new"
    mv "$binary.new" "$binary"
    # One that runs already keeps its port; its pods are taken over.
    if [ -f "$pid_file" ] && kill "$(cat "$pid_file")" 2>/dev/null; then
        while kill -0 "$(cat "$pid_file")" 2>/dev/null; do sleep 0.2; done
    fi
    mkdir -p "$run_dir" "$data_dir"
    log="$data_dir/server.log"
    # Everybody may read the list of processes, but not another's environment.
    next=
    for argument in "$@"; do
        shift
        case $next$argument in
        --token) next=token: ;;
        --token=*) export CORACLE_TOKEN="${argument#--token=}" ;;
        token:*) next= && export CORACLE_TOKEN="$argument" ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    setsid "$binary" "$role" "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    # A unit is started only when it has joined; here that is looked for.
    waited=0
    until [ -z "$joins" ] || [ -e "$data_dir/agent/cluster.json" ]; do
        waited=$((waited + 1))
        kill -0 "$(cat "$pid_file")" 2>/dev/null ||
            fail "this board did not join: $(sed -n 's/^error: //p' "$log" | tail -1)" "see: $log"
        [ $waited -lt $patience_seconds ] || fail "this board is still trying to join" "see: $log"
        sleep 1
    done
fi

if [ -n "$joins" ]; then
    echo "This board has joined the cluster. On a server: kubectl get nodes"
    exit
fi

echo "==> importing the hello image and running it"
"$binary" image import --hello >/dev/null
install -D -m 600 deploy/hello.yaml "$data_dir/server/manifests/hello.yaml"

waited=0
until answer=$(curl -s -m 2 "http://127.0.0.1:$node_port/" || curl -s -m 2 "http://$(hostname -I | cut -d' ' -f1):$node_port/"); do
    waited=$((waited + 1))
    [ $waited -lt $patience_seconds ] ||
        fail "the hello workload does not answer on port $node_port" \
            "see: $log, and: kubectl describe pods"
    sleep 1
done
echo "$answer"
cat <<TXT

The cluster runs. Next:
  coracle kubeconfig > ~/.kube/config     # then: kubectl get pods -A
  curl http://$(hostname -I | cut -d' ' -f1):$node_port/
  coracle uninstall                       # ends it all, and nothing is left
TXT
