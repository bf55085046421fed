#!/bin/sh
# Brings what the tests drive and serve: two kubectls, a registry, a machine with systemd, and the
# packages that the application of several tiers is made of. Everything but a few build tools and
# namespace tools is unpacked below target/tools instead of being installed: no package's service
# is started, no file of the machine is replaced, and another vendor's kubectl stays where it is.
set -eu
cd "$(dirname "$0")/.."

export DEBIAN_FRONTEND=noninteractive
tools=$PWD/target/tools
debs=$tools/debs
mkdir -p "$debs" "$tools/bin"

# What is installed: programs only, none of these packages has a service.
install_missing() {
    missing=
    for pair in ip:iproute2 musl-gcc:musl-tools cc:gcc busybox:busybox-static curl:curl \
        script:bsdutils skopeo:skopeo make:make protoc:protobuf-compiler tc:iproute2 \
        dbus-daemon:dbus-daemon python3:python3 debugfs:e2fsprogs ssh:openssh-client; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # What protoc's own types stand in.
    [ -e /usr/include/google/protobuf/descriptor.proto ] || missing="$missing libprotobuf-dev"
    if [ -n "$missing" ]; then
        echo "    installing$missing"
        # shellcheck disable=SC2086  # a list of names
        install() { apt-get install -y -q --no-install-recommends $missing </dev/null >"$tools/apt.log" 2>&1; }
        install || { refresh && install; } ||
            { tail -20 "$tools/apt.log"; exit 1; }
    fi
}

download() {
    (cd "$debs" && apt-get download -q "$1" >"$tools/apt.log" 2>&1)
}

# The machine's package lists may be older than what the mirror still has.
refresh() {
    echo "    fetching package lists"
    apt-get update -q </dev/null >"$tools/apt.log" 2>&1
}

# fetch FOLDER PACKAGE...: the packages' files below target/tools/FOLDER. What is there already
# stays, so that only the first run needs the mirror.
fetch() {
    folder=$tools/$1
    shift
    [ -e "$folder/.complete" ] && [ "$(cat "$folder/.complete")" = "$*" ] && return
    echo "    unpacking $* into ${folder#"$PWD"/}"
    rm -rf "$folder"
    mkdir -p "$folder"
    for package in "$@"; do
        # The newest by name: an older file of the same package may lie beside it.
        ls "$debs/${package}"_*.deb >/dev/null 2>&1 || download "$package" ||
            { refresh && download "$package"; } || { cat "$tools/apt.log"; exit 1; }
        dpkg -x "$(ls -t "$debs/${package}"_*.deb | head -1)" "$folder"
    done
    echo "$*" >"$folder/.complete"
}

# A storage that speaks S3, for snapshots.
fetch_s3rver() {
    [ -e "$tools/s3rver/node_modules/s3rver/bin/s3rver.js" ] && return
    command -v npm >/dev/null 2>&1 || apt-get install -y -q --no-install-recommends nodejs npm \
        </dev/null >"$tools/apt.log" 2>&1 || { tail -20 "$tools/apt.log"; exit 1; }
    echo "    installing s3rver into target/tools/s3rver"
    npm install --prefix "$tools/s3rver" --no-audit --no-fund --loglevel error s3rver@3.7.1 \
        >"$tools/npm.log" 2>&1 || { tail -20 "$tools/npm.log"; exit 1; }
}

# The Python client, which operators and scripts are written with.
fetch_python() {
    [ -e "$tools/python/lib/python3."*"/site-packages/kubernetes/client" ] && return
    python3 -c 'import ensurepip' 2>/dev/null ||
        apt-get install -y -q --no-install-recommends python3-venv </dev/null \
            >"$tools/apt.log" 2>&1 || { tail -20 "$tools/apt.log"; exit 1; }
    echo "    installing the Python client into target/tools/python"
    python3 -m venv "$tools/python" &&
        "$tools/python/bin/pip" install -q --disable-pip-version-check 'kubernetes==36.0.3' \
            >"$tools/pip.log" 2>&1 || { tail -20 "$tools/pip.log"; exit 1; }
}

mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1
}

# fetch_sid FOLDER PACKAGE...: as fetch, of Debian unstable, through an apt configuration of its own
# on the machine's own mirror; the machine's package lists are not touched.
fetch_sid() {
    folder=$tools/$1
    shift
    [ -e "$folder/.complete" ] && [ "$(cat "$folder/.complete")" = "$*" ] && return
    echo "    unpacking $* of Debian unstable into ${folder#"$PWD"/}"
    private=$tools/apt-sid
    mkdir -p "$private/lists/partial" "$private/cache/archives/partial" "$private/etc"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $(mirror) sid main" >"$private/etc/sources.list"
    sid="-o Dir::Etc::sourcelist=$private/etc/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o Dir::Etc::preferences=/dev/null
        -o Dir::State::lists=$private/lists -o Dir::Cache=$private/cache
        -o APT::Sandbox::User=root -o Acquire::Languages=none"
    rm -rf "$private/debs" "$folder"
    mkdir -p "$private/debs" "$folder"
    # shellcheck disable=SC2086  # lists of options and of names
    (cd "$private/debs" &&
        { [ -e ../fresh ] || { apt-get $sid update -q && touch ../fresh; }; } &&
        apt-get $sid download -q $(printf '%s/sid ' "$@")) \
        </dev/null >"$tools/apt.log" 2>&1 || { cat "$tools/apt.log"; exit 1; }
    for package in "$private/debs"/*.deb; do dpkg -x "$package" "$folder"; done
    rm -rf "$folder/usr/share/doc" "$folder/usr/share/man" "$folder/usr/share/locale"
    echo "$*" >"$folder/.complete"
}

# A small Debian with systemd as process 1 and an SSH server, for tests of services and of set-up. It is
# made in memory: package managers sync every file.
fetch_debian() {
    [ -e "$tools/debian/usr/sbin/sshd" ] && return
    echo "    making a Debian with systemd in target/tools/debian"
    memory=$tools/debian.memory
    mkdir -p "$memory"
    mount -t tmpfs -o size=2g debian "$memory"
    made=0
    TMPDIR=$memory "$tools/mmdebstrap/usr/bin/mmdebstrap" --quiet --mode=root --variant=essential \
        --include=apt,systemd,systemd-sysv,dbus,openssh-server,sudo,iproute2,procps bookworm "$memory/root" "$(mirror)" \
        </dev/null >"$tools/debian.log" 2>&1 && rm -rf "$tools/debian.new" "$tools/debian" &&
        cp -a "$memory/root" "$tools/debian.new" && mv "$tools/debian.new" "$tools/debian" && made=1
    umount "$memory"
    rmdir "$memory"
    [ $made = 1 ] || { tail -20 "$tools/debian.log"; exit 1; }
}

# fetch_repository PACKAGE...: a mirror of these alone in target/tools/repository, for boards that install
# them and have no other.
fetch_repository() {
    folder=$tools/repository
    [ -e "$folder/.complete" ] && [ "$(cat "$folder/.complete")" = "$*" ] && return
    echo "    making a mirror of $* in target/tools/repository"
    rm -rf "$folder"
    mkdir -p "$folder"
    for package in "$@"; do
        ls "$debs/${package}"_*.deb >/dev/null 2>&1 || download "$package" ||
            { refresh && download "$package"; } || { cat "$tools/apt.log"; exit 1; }
        file=$(ls -t "$debs/${package}"_*.deb | head -1)
        cp "$file" "$folder/"
        dpkg-deb -f "$file"
        echo "Filename: ./$(basename "$file")"
        echo "Size: $(stat -c %s "$file")"
        echo "SHA256: $(sha256sum <"$file" | cut -d' ' -f1)"
        echo
    done >"$folder/Packages"
    echo "$*" >"$folder/.complete"
}

if [ "$(id -u)" != 0 ]; then
    echo "error: the tests make network namespaces and containers, which takes root" >&2
    echo "hint: sudo $0" >&2
    exit 1
fi
# A fresh machine has no package lists yet.
if ! apt-cache show iproute2 >/dev/null 2>&1; then
    refresh || { cat "$tools/apt.log"; exit 1; }
fi
install_missing
fetch kubectl-1.20 kubernetes-client
fetch registry docker-registry
fetch etcd etcd-server etcd-client
fetch postgres postgresql-15 postgresql-client-15 libpq5 libllvm14 libldap-2.5-0 libsasl2-2
fetch mariadb mariadb-server-core mariadb-client-core liburing2 libpmem1 libndctl6 libdaxctl1 \
    libaio1 libsnappy1v5
fetch keepalived keepalived libnl-3-200 libnl-genl-3-200 libnl-route-3-200 libsnmp40 libipset13 \
    libpci3 libwrap0
fetch age age
# AWS' own library, which checks our signatures.
fetch botocore python3-botocore python3-certifi python3-chardet python3-charset-normalizer \
    python3-dateutil python3-idna python3-jmespath python3-requests python3-six python3-urllib3
fetch image-nginx nginx libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g
fetch image-python python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libssl3 \
    zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5
fetch image-redis redis-tools redis-server libc6 libatomic1 libhiredis0.14 libjemalloc2 \
    liblua5.1-0 liblzf1 libssl3 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 \
    libzstd1 libstdc++6 libgcc-s1 lua-bitop lua-cjson
# What images of cards are made and looked at with.
fetch disk fdisk libfdisk1 dosfstools mtools
fetch mmdebstrap mmdebstrap
fetch_debian
fetch_repository etcd-server dnsmasq dnsmasq-base nftables libjansson4 libnetfilter-conntrack3 \
    libnfnetlink0 libnftables1 libnftnl11 libreadline8 readline-common netbase e2fsprogs libext2fs2 \
    libss2 libcom-err2 logsave fdisk libfdisk1 libncursesw6
fetch_sid kubectl-new kubectl
rm -rf "$tools/apt-sid"
fetch_s3rver
fetch_python
ln -sf "$tools/registry/usr/bin/docker-registry" "$tools/bin/docker-registry"
