#!/bin/bash
# Runs functions of upstream's shell test of kubectl (test/cmd of Kubernetes 1.20) against a server:
# commands.sh TREE FUNCTIONS-FILE. `cargo xtask conformance commands` sets up the tree and the server.
#
# Upstream stops a function at its first failed check. Here all go on, and each line of a function that
# fails is printed once, as `FAILED function file:line text`; a function's end as `DONE function seconds`.
# shellcheck disable=SC1091,SC2034  # upstream's files, and variables that they use
cd "$1" || exit 1
functions=$2
export TERM=dumb LANG=C NO_COLOR=1 ALLOW_SKEW=1 GOGC=off
KUBE_TEMP=$(mktemp -d)
export KUBE_TEMP HOME=$KUBE_TEMP KUBE_JUNIT_REPORT_DIR=$KUBE_TEMP
# Some function wants any certificate of this name.
export TMPDIR=$KUBE_TEMP
cp hack/testdata/ca.crt "$TMPDIR/apiserver.crt"
KUBE_ROOT=$PWD
LOG=$KUBE_ROOT/commands.log
tput() { :; }
exec 8>&1 >"$LOG" 2>&1
source hack/lib/init.sh
source hack/lib/test.sh
source test/cmd/legacy-script.sh
set +o errexit +o nounset
kube::util::ensure-gnu-sed

CONTEXT=test
kubectl config set-credentials test-admin --token admin-token
kubectl config set-cluster local --insecure-skip-tls-verify --server "https://127.0.0.1:$SECURE_API_PORT"
kubectl config set-context "$CONTEXT" --user test-admin --cluster local
kubectl config use-context "$CONTEXT"
# As upstream's `create_node` makes it: nothing runs there.
kubectl create -f - <<'NODE'
{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "127.0.0.1"},
 "status": {"capacity": {"memory": "1Gi"}}}
NODE
# What `runTests` defines before the first function.
eval "$(sed -n '/create_and_use_new_namespace() {/,/export image_field1/p' test/cmd/legacy-script.sh)"

# Functions switch on that a failure ends them.
set() { [ "${2-}" = errexit ] || builtin set "$@"; }
# The line of the test that a failed command belongs to.
mark() {
    local frame file line
    for frame in "${!BASH_SOURCE[@]}"; do
        file=${BASH_SOURCE[$frame]}
        [[ $file == *test/cmd/*.sh && $frame -gt 0 ]] || continue
        line=${BASH_LINENO[$((frame - 1))]}
        echo "FAILED $running ${file##*/}:$line $(sed -n "${line}s/^ *//p" "$file")" >&7
        return
    done
}
one() {
    builtin set -o errtrace
    trap mark ERR
    "$1"
}
while read -r running; do
    began=$SECONDS
    echo "=== $running"
    (one "$running") </dev/null 7>"$KUBE_TEMP/failed"
    ended=$?
    sort -u -V "$KUBE_TEMP/failed" >&8
    [ "$ended" = 0 ] || echo "FAILED $running left early ($ended)" >&8
    echo "DONE $running $((SECONDS - began))" >&8
done <"$functions"
stop-proxy
rm -rf "$KUBE_TEMP"
