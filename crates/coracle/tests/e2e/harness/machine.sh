# Boots systemd as process 1 of a machine that is a folder: machine.sh NAME FOLDER DEBIAN BINARY.
# Its own are all namespaces (the network one is the caller's), the control group of its name, and
# what it writes, which lies below FOLDER and is there again at the next boot.
set -eu
name=$1 folder=$2 debian=$3 binary=$4

# hierarchies COMMAND: once for each hierarchy of control groups: kind, mount point, name.
hierarchies() {
    while read -r _ point kind _; do
        case $kind in
        cgroup | cgroup2) case $point in /sys/fs/cgroup*) "$1" "$kind" "$point" "${point##*/}" ;; esac ;;
        esac
    done </proc/self/mounts
}

join() {
    group=$2/$(basename "$folder")
    mkdir -p "$group"
    # A new cpuset takes no process before it has a CPU.
    if [ "$3" = cpuset ]; then
        cat "$2/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$2/cpuset.mems" >"$group/cpuset.mems"
    fi
    echo $$ >"$group/cgroup.procs"
}

show() {
    point=$root$2
    mkdir -p "$point"
    case $1:$3 in
    cgroup2:*) mount -t cgroup2 cgroup2 "$point" ;;
    cgroup:systemd) mount -t cgroup -o none,name=systemd cgroup "$point" ;;
    *) mount -t cgroup -o "$3" cgroup "$point" ;;
    esac
}

if [ $# = 4 ]; then
    hierarchies join
    exec unshare --mount --pid --fork --uts --ipc --cgroup --kill-child --propagation private \
        sh "$0" "$@" inside
fi

root=$folder/root
mkdir -p "$root" "$folder/written" "$folder/work" "$folder/data"
mount -t overlay -o "lowerdir=$debian,upperdir=$folder/written,workdir=$folder/work" overlay "$root"
# The kernel's parameters are the machine's own where they are the network's, else to be read.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    numbers=${device#*:}
    mknod -m 666 "$root/dev/${device%%:*}" c "${numbers%:*}" "${numbers#*:}"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
grep -q ' /sys/fs/cgroup cgroup2 ' /proc/self/mounts ||
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
hierarchies show
# Images are layers of an overlay, which an overlay cannot hold.
mkdir -p "$root/var/lib/coracle"
mount --bind "$folder/data" "$root/var/lib/coracle"
touch "$root/mnt/coracle"
mount --bind "$binary" "$root/mnt/coracle"
# Packages for a machine that has no other mirror.
if [ -d "$debian/../repository" ]; then
    mkdir -p "$root/mnt/repository"
    mount --bind -o ro "$debian/../repository" "$root/mnt/repository"
fi
# As the firmware of a Raspberry Pi has it: no memory controller unless the command line says so.
if [ -e "$root/boot/firmware/cmdline.txt" ] && ! grep -q cgroup_enable=memory "$root/boot/firmware/cmdline.txt"; then
    if [ -e "$root/sys/fs/cgroup/cgroup.controllers" ]; then
        sed 's/memory//' "$root/sys/fs/cgroup/cgroup.controllers" >"$folder/controllers"
        mount --bind "$folder/controllers" "$root/sys/fs/cgroup/cgroup.controllers"
    else
        awk '$1 == "memory" { $4 = 0 } { print }' "$root/proc/cgroups" >"$folder/controllers"
        mount --bind "$folder/controllers" "$root/proc/cgroups"
    fi
fi
# What it is called later stays.
[ -e "$folder/booted" ] || echo "$name" >"$root/etc/hostname"
[ -e "$folder/booted" ] || : >"$root/etc/machine-id"
: >"$folder/booted"
mkdir -p "$root/mnt/outside"
cd "$root"
pivot_root . mnt/outside
umount -l /mnt/outside
# The clock and the modules are everybody's.
exec setpriv --bounding-set -sys_time,-sys_module env -i container=coracle-test \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
