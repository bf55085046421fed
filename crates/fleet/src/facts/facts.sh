# What a board is: one `key=value` a line, texts of several lines in base64 behind `key:=`. It changes
# nothing on disks and needs nothing but a POSIX shell and coreutils; what a board cannot say is left out.
# Variables before it: files, packages, sysctls, names, devices, cmdlines (lists of words), login, sums (0:
# leave out the checksum of the binary).
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
say() { printf '%s=%s\n' "$1" "$2"; }
text() { printf '%s:=%s\n' "$1" "$(base64 | tr -d '\n')"; }
file() { [ -r "$2" ] && text "$1" <"$2"; }
# The checksum of a large file, kept in memory until the file or the board's start is another.
kept_sum() {
    kept=/run/coracle-up.sum
    is=$(stat -c '%i %s %y %z' "$1")
    if [ "$(head -n 1 "$kept" 2>/dev/null)" != "$is" ]; then
        printf '%s\n%s\n' "$is" "$(sha256sum <"$1" | cut -d' ' -f1)" >"$kept.new" && mv -f "$kept.new" "$kept"
    fi
    tail -n 1 "$kept"
}

say time "$(date +%s.%N)"
say arch "$(uname -m)"
say kernel "$(uname -r)"
say hostname "$(uname -n)"
file os /etc/os-release
[ -r /proc/device-tree/model ] && say model "$(tr -d '\0' </proc/device-tree/model)"
file machine-id /etc/machine-id
say boot-id "$(cat /proc/sys/kernel/random/boot_id)"
# A board that is started anew is told by its first process, too: containers share the boot's id.
say init "$(cut -d' ' -f22 /proc/1/stat 2>/dev/null)"
file meminfo /proc/meminfo
file swaps /proc/swaps
file fstab /etc/fstab
file hosts /etc/hosts
file cmdline /proc/cmdline
say container "$(systemd-detect-virt --container 2>/dev/null)"
for place in $cmdlines; do
    [ -f "$place" ] && [ ! -L "$place" ] && say boot "$place" && file boot-cmdline "$place" && break
done
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    say cgroup 2
    say controllers "$(cat /sys/fs/cgroup/cgroup.controllers)"
else
    say cgroup 1
    say controllers "$(awk '$1 !~ /^#/ && $4 == 1 { printf "%s ", $1 }' /proc/cgroups)"
fi
say uptime "$(cut -d. -f1 /proc/uptime)"
say load "$(cut -d' ' -f1 /proc/loadavg)"
say cpus "$(grep -c ^processor /proc/cpuinfo)"

# The network.
# Where this connection came in; sudo keeps that to itself.
via=${SSH_CONNECTION:-$(tr '\0' '\n' <"/proc/$PPID/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p')}
say via "$(echo "$via" | cut -d' ' -f3)"
ip -o address 2>/dev/null | text addresses
ip -o link 2>/dev/null | text links
ip route 2>/dev/null | text routes
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { print $2 }' | text listening
for name in $names; do
    say "resolves.$name" "$(timeout 2 getent ahosts "$name" 2>/dev/null | awk '{ print $1 }' | sort -u | tr '\n' ' ')"
done

# What sets the network up: what is there, and what is in files that are changed.
for path in /etc/systemd/system/multi-user.target.wants/* /usr/sbin/netplan /usr/sbin/ifup /sbin/ifup \
    /usr/sbin/resolvconf /sbin/resolvconf /usr/lib/systemd/system/systemd-networkd.service \
    /lib/systemd/system/systemd-networkd.service /etc/netplan/* /etc/dhcpcd.conf /etc/resolv.conf \
    /etc/network/interfaces /etc/network/interfaces.d/*; do
    [ -e "$path" ] || [ -L "$path" ] || continue
    case $path in
    /etc/network/* | /etc/netplan/* | /etc/dhcpcd.conf) printf '%s %s\n' "$path" "$(base64 <"$path" | tr -d '\n')" ;;
    *) printf '%s\n' "$path" ;;
    esac
done 2>/dev/null | text network
[ -e /etc/coracle-address/revert ] && say address-pending yes

# Disks.
lsblk -P -b -o PATH,TYPE,SIZE,FSTYPE,LABEL,MOUNTPOINT,MODEL,RO 2>/dev/null | text disks
# What lsblk has from udev, where there is no udev. Without its cache, which may be seconds old.
blkid -c /dev/null 2>/dev/null | text blkid
for device in $devices; do
    say "device.$device" "$(readlink -f "$device" 2>/dev/null)"
done
file mounts /proc/mounts
df -Pk / /var/lib 2>/dev/null | text space
df -Pi / 2>/dev/null | text inodes
[ -d /var/lib/coracle ] && df -Pk /var/lib/coracle 2>/dev/null | text data-space
for card in /sys/block/mmcblk*/device; do
    [ -r "$card/name" ] || continue
    say "card.$(basename "$(dirname "$card")")" "$(cat "$card/name" "$card/date" "$card/life_time" "$card/pre_eol_info" 2>/dev/null | tr '\n' ' ')"
done

# The hardware's own complaints.
throttled=$(vcgencmd get_throttled 2>/dev/null | cut -d= -f2)
[ -n "$throttled" ] || throttled=$(cat /sys/devices/platform/soc/soc:firmware/get_throttled 2>/dev/null)
[ -n "$throttled" ] && say throttled "$throttled"
[ -r /sys/class/thermal/thermal_zone0/temp ] && say temperature "$(cat /sys/class/thermal/thermal_zone0/temp)"

# The system's settings.
say timezone "$(readlink /etc/localtime 2>/dev/null)"
say synchronised "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
for unit in systemd-timesyncd chrony ntp ntpsec; do
    systemctl is-active -q "$unit" 2>/dev/null && say timesync "$unit"
done
for unit in dphys-swapfile rpi-swap zramswap; do
    systemctl is-enabled -q "$unit" 2>/dev/null && say swap-service "$unit"
done
for key in $sysctls; do
    say "sysctl.$key" "$(cat "/proc/sys/$(echo "$key" | tr . /)" 2>/dev/null)"
done
for package in $packages; do
    say "package.$package" "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)"
done
for path in $files; do
    [ -f "$path" ] && say "file.$path" "$(stat -c %a "$path") $(sha256sum <"$path" | cut -d' ' -f1)"
done
home=$(getent passwd "$login" | cut -d: -f6)
[ -n "$home" ] && say home "$home" && file authorized "$home/.ssh/authorized_keys"

# Coracle.
binary=/usr/local/bin/coracle
if [ -x "$binary" ]; then
    [ "$sums" = 0 ] || say binary "$(kept_sum "$binary")"
    release=$("$binary" version 2>/dev/null | awk '{ print $2 }')
    say release "$release"
fi
file config /etc/coracle/config.yaml
[ -e /etc/coracle/.restart ] && say restart yes
for unit in coracle.service coracle-agent.service; do
    [ -e "/etc/systemd/system/$unit" ] || continue
    say "active.$unit" "$(systemctl is-active "$unit" 2>/dev/null)"
    say "enabled.$unit" "$(systemctl is-enabled "$unit" 2>/dev/null)"
done
[ "$(systemctl is-active coracle.service 2>/dev/null)" = active ] &&
    timeout 15 "$binary" board nodes 2>/dev/null | text nodes
data=/var/lib/coracle
file server-authority "$data/server/tls/server-ca.crt"
file agent-cluster "$data/agent/cluster.json"
[ -d "$data/server/db" ] || [ -d "$data/server/etcd" ] && say holds-data yes
# Of tokens only what tells one from another.
for token in /etc/coracle/token "$data/server/token" "$data/server/agent-token"; do
    [ -r "$token" ] && say "token.$token" "$(tr -d '\n' <"$token" | sha256sum | cut -d' ' -f1)"
done
say done yes
