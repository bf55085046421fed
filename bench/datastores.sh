#!/bin/bash
# What writes and linearizable reads cost over each datastore, on this machine's disk: real etcd
# (one member, and three), PostgreSQL and MariaDB from target/tools, each beside SQLite. Prints a
# table. Everything it makes is removed again; only processes that it started are ended.
#
#   bench/datastores.sh
#
# BENCH_DIR       where the data goes; a file system like the one that is meant (/var/tmp)
# BENCH_SECONDS   how long each figure is measured (5)
# BENCH_PROFILE   cargo's profile (release)
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
tools=$PWD/target/tools
seconds=${BENCH_SECONDS:-5}
profile=${BENCH_PROFILE:-release}
directory=$(mktemp -d "${BENCH_DIR:-/var/tmp}/coracle-datastores-XXXXXX")
started=()

clean_up() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$directory"
}
trap clean_up EXIT

# start LOG COMMAND...: in the background, noted for the end.
start() {
    local log=$directory/$1.log
    shift
    "$@" >"$log" 2>&1 &
    started+=($!)
}

# answers PORT: waits until somebody listens.
answers() {
    for _ in $(seq 300); do
        (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nobody answers on port $1" >&2
    exit 1
}

libraries() {
    echo "$tools/$1/usr/lib/x86_64-linux-gnu:$tools/$1/lib/x86_64-linux-gnu"
}

# member NAME CLIENT PEER CLUSTER
member() {
    start "$1" "$tools/etcd/usr/bin/etcd" --name "$1" --data-dir "$directory/$1" \
        --listen-client-urls "http://127.0.0.1:$2" --advertise-client-urls "http://127.0.0.1:$2" \
        --listen-peer-urls "http://127.0.0.1:$3" --initial-cluster "$4" \
        --initial-advertise-peer-urls "http://127.0.0.1:$3"
}

base=$((20000 + $$ % 10000))
member one $base $((base + 1)) "one=http://127.0.0.1:$((base + 1))"
peers=a=http://127.0.0.1:$((base + 3)),b=http://127.0.0.1:$((base + 5)),c=http://127.0.0.1:$((base + 7))
member a $((base + 2)) $((base + 3)) "$peers"
member b $((base + 4)) $((base + 5)) "$peers"
member c $((base + 6)) $((base + 7)) "$peers"

# PostgreSQL refuses to run as root.
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups env "LD_LIBRARY_PATH=$(libraries postgres)")
chmod 755 "$directory"
mkdir "$directory/postgres" && chown 65534 "$directory/postgres"
programs=$tools/postgres/usr/lib/postgresql/15/bin
"${nobody[@]}" "$programs/initdb" -D "$directory/postgres/data" -U postgres --auth=trust --locale=C \
    -E UTF8 >"$directory/initdb.log" 2>&1
start postgres "${nobody[@]}" "$programs/postgres" -D "$directory/postgres/data" \
    -p $((base + 8)) -k "$directory/postgres" -h 127.0.0.1 -c dynamic_shared_memory_type=mmap

maria=$tools/mariadb/usr
LD_LIBRARY_PATH=$(libraries mariadb) PATH=$maria/bin:$maria/sbin:$PATH "$maria/bin/mariadb-install-db" \
    --no-defaults --basedir="$maria" --datadir="$directory/mariadb" --user=root --skip-test-db \
    --auth-root-authentication-method=normal >"$directory/install.log" 2>&1
start mariadb env "LD_LIBRARY_PATH=$(libraries mariadb)" "$maria/sbin/mariadbd" --no-defaults \
    --basedir="$maria" --datadir="$directory/mariadb" --socket="$directory/socket" --user=root \
    --pid-file="$directory/mariadb.pid" --port=$((base + 9)) --bind-address=127.0.0.1 \
    --skip-name-resolve

for port in 0 2 4 6 8 9; do answers $((base + port)); done
cargo run -q --profile "$profile" -p store --example datastores -- "$seconds" "$directory/sqlite" \
    sqlite \
    "http://127.0.0.1:$base" \
    "http://127.0.0.1:$((base + 2)),http://127.0.0.1:$((base + 4)),http://127.0.0.1:$((base + 6))" \
    "postgres://postgres@127.0.0.1:$((base + 8))/bench" \
    "mysql://root@tcp(127.0.0.1:$((base + 9)))/bench"
