# Upstream's control plane beside ours, sourced by bench/run.sh --peer: etcd, kube-apiserver,
# kube-controller-manager and kube-scheduler of Debian's packages and sources, in the same network
# namespace with the same kind of keys, under the same load. Each round has empty data; who is first
# alternates. etcd is spoken to without TLS, which is in upstream's favour.
#
# PEER_ROUNDS   how often each is measured; the medians are compared (3)
# PEER_BIN      a folder with the four programs instead of building them

peer_rounds=${PEER_ROUNDS:-3}
peer_settle_seconds=20
peer_pids=()

# certificate NAME SUBJECT [EXTENSION]: a key and what the peer's authority says of it.
certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" \
        -keyout "$keys/$1.key" -out "$keys/$1.csr" 2>/dev/null
    openssl x509 -req -in "$keys/$1.csr" -CA "$keys/ca.crt" -CAkey "$keys/ca.key" -days 2 \
        -extfile <(echo "${3:-extendedKeyUsage=clientAuth}") -out "$keys/$1.crt" 2>/dev/null
}

# kubeconfig NAME: for the client of that name.
kubeconfig() {
    cat >"$keys/$1.kubeconfig" <<-YAML
	apiVersion: v1
	kind: Config
	clusters:
	- name: peer
	  cluster:
	    server: https://127.0.0.1:7443
	    certificate-authority-data: $(base64 -w0 "$keys/ca.crt")
	users:
	- name: peer
	  user:
	    client-certificate-data: $(base64 -w0 "$keys/$1.crt")
	    client-key-data: $(base64 -w0 "$keys/$1.key")
	contexts:
	- name: peer
	  context: {cluster: peer, user: peer}
	current-context: peer
	YAML
}

peer_keys() {
    keys=$data/keys
    mkdir -p "$keys"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=peer \
        -days 2 -keyout "$keys/ca.key" -out "$keys/ca.crt" 2>/dev/null
    certificate server /CN=kube-apiserver \
        "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.43.0.1"
    certificate admin /O=system:masters/CN=admin
    certificate controllers /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    openssl ecparam -name prime256v1 -genkey -noout -out "$keys/accounts.key" 2>/dev/null
    for name in admin controllers scheduler; do kubeconfig "$name"; done
}

# peer_program NAME ARGUMENT...: starts one of its programs in the namespace.
peer_program() {
    inside_exec "$peer_bin/$1" "${@:2}" >>"$data/$1.log" 2>&1 &
    peer_pids+=($!)
}

# inside_exec: like `inside`, in place of the subshell that calls it, so that $! is the program.
inside_exec() { exec nsenter --net="/run/netns/$namespace" -- "$@"; }

start_peer() {
    peer_pids=()
    peer_program etcd --data-dir "$data/peer-$1" --log-level error
    peer_program kube-apiserver --etcd-servers http://127.0.0.1:2379 \
        --bind-address 127.0.0.1 --advertise-address 10.99.0.2 --secure-port 7443 \
        --tls-cert-file "$keys/server.crt" --tls-private-key-file "$keys/server.key" \
        --client-ca-file "$keys/ca.crt" --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction --service-cluster-ip-range 10.43.0.0/16 \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$keys/accounts.key" \
        --service-account-signing-key-file "$keys/accounts.key"
    inside target/release/bench "$data/peer" ready "$keys/admin.kubeconfig" "${peer_pids[1]}"
    peer_program kube-controller-manager --kubeconfig "$keys/controllers.kubeconfig" \
        --use-service-account-credentials --root-ca-file "$keys/ca.crt" \
        --service-account-private-key-file "$keys/accounts.key" --bind-address 127.0.0.1
    peer_program kube-scheduler --kubeconfig "$keys/scheduler.kubeconfig" --bind-address 127.0.0.1
}

stop_peer() {
    local index
    for ((index = ${#peer_pids[@]} - 1; index >= 0; index--)); do end "${peer_pids[index]}"; done
    peer_pids=()
    rm -rf "$data"/peer-*
}

# loaded FIGURES KUBECONFIG PIDS: memory at rest, then the load.
loaded() {
    sleep "$peer_settle_seconds"
    inside target/release/bench "$1" memory memory_idle "$3" "$run" >&2
    inside target/release/bench "$1" load "$2" "$3" "$run" >&2
}

# measure_side SIDE ROUND: one round of one side.
measure_side() {
    say "round $2: $1"
    if [ "$1" = ours ]; then
        state=$data/ours-$2
        start "ours_$2"
        loaded "$data/ours.$2" "$data/kubeconfig" "$server"
        stop
        rm -rf "$state"
    else
        start_peer "$2"
        local pids="${peer_pids[*]}"
        loaded "$data/theirs.$2" "$keys/admin.kubeconfig" "${pids// /,}"
        stop_peer
    fi
}

compare_with_peer() {
    local round ours=() theirs=()
    # Downloads speak on the standard output, too; the folder is the last line.
    peer_bin=${PEER_BIN:-$(cargo xtask conformance peer | tail -n 1)}
    peer_keys
    for round in $(seq "$peer_rounds"); do
        if ((round % 2)); then
            measure_side ours "$round" && measure_side theirs "$round"
        else
            measure_side theirs "$round" && measure_side ours "$round"
        fi
        ours+=("$data/ours.$round") theirs+=("$data/theirs.$round")
    done
    local IFS=,
    peer_table=$(target/release/bench "$data/peer" compare "${ours[*]}" "${theirs[*]}")
}

report_peer() {
    echo "# Coracle beside upstream"
    echo
    echo "Made by \`bench/run.sh --peer\`: medians of $peer_rounds rounds each, in turn within one run (lowest" \
        "and highest in brackets)."
    echo "Upstream is kube-apiserver, kube-controller-manager and kube-scheduler" \
        "$("$peer_bin/kube-apiserver" --version | cut -d ' ' -f 2) with etcd" \
        "$("$peer_bin/etcd" --version | sed -n 's/etcd Version: //p'), no node; Coracle is all of its" \
        "server with the agent."
    echo
    conditions
    echo
    echo "$peer_table"
}
