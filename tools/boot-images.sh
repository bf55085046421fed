#!/bin/bash
# Prepares images for two boards out of a Debian made here, switches both on under QEMU (software
# emulation, x86_64), and waits until both nodes are Ready: the first board makes the cluster, the second
# formats the data's partition on its own card and joins. By hand, as root, after ./test.sh tools;
# CORACLE_BIN is the binary. It takes some minutes, 3 GB below FOLDER, and the packages qemu-system-x86 and
# openssh-client.
#
#   tools/boot-images.sh [FOLDER]        # /var/tmp/coracle-boot; the Debian in it is made once
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
coracle=$(realpath "${CORACLE_BIN:-target/x86_64-unknown-linux-musl/debug/coracle}")
folder=${1:-/var/tmp/coracle-boot}
export PATH="$tools/disk/sbin:$tools/disk/usr/sbin:$tools/disk/usr/bin:$PATH:/usr/sbin:/sbin"
ns="coracle-boot-$$"
mkdir -p "$folder"
cd "$folder"

cleanup() {
    for name in pi1 pi2; do
        [ ! -e "$name.pid" ] || kill "$(cat "$name.pid")" 2>/dev/null || :
        rm -f "$name.pid"
    done
    ip netns del "$ns" 2>/dev/null || :
}
trap cleanup EXIT

# A Debian with a kernel, in memory: package managers sync every file.
if [ ! -e debian/.complete ]; then
    echo "==> making a Debian"
    rm -rf debian memory && mkdir memory
    mount -t tmpfs -o size=3g boot "$PWD/memory"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    TMPDIR=$PWD/memory "$tools/mmdebstrap/usr/bin/mmdebstrap" --quiet --mode=root --variant=essential \
        --include=apt,linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,openssh-server,sudo,e2fsprogs,iproute2,procps,zstd \
        bookworm memory/root "$mirror" && cp -a memory/root debian && touch debian/.complete
    umount memory && rmdir memory
fi

echo "==> packing it as a stock image"
rm -rf root cards && mkdir root
mount --bind debian root
umount_root() { umount root && rmdir root; }
mkdir -p debian/boot/firmware
cat >debian/etc/fstab <<END
PARTUUID=deadbeef-01 /boot/firmware vfat defaults 0 2
PARTUUID=deadbeef-02 / ext4 defaults,noatime 0 1
END
truncate -s 40M fat.img && mkfs.fat -F 32 -n BOOTFS fat.img >/dev/null
echo "console=ttyS0 root=PARTUUID=deadbeef-02 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot" >cmdline.txt
mcopy -o -i fat.img cmdline.txt ::cmdline.txt
rm -f ext.img && truncate -s 560M ext.img && mke2fs -q -t ext4 -d root ext.img
umount_root
rm -f stock.img && truncate -s 604M stock.img
printf 'label: dos\nlabel-id: 0xdeadbeef\nstart=4MiB, size=40MiB, type=c\nstart=44MiB, type=83\n' |
    sfdisk -q stock.img
dd if=fat.img of=stock.img bs=1M seek=4 conv=notrunc,sparse status=none
dd if=ext.img of=stock.img bs=1M seek=44 conv=notrunc,sparse status=none
rm fat.img ext.img

echo "==> preparing images for two boards"
[ -e key ] || ssh-keygen -q -t ed25519 -N '' -f key
(umask 077 && echo c0ffeec0ffeec0ffee >token)
cat >cluster.yaml <<END
name: boot
token: {file: token}
ssh: {user: admin, authorizedKeys: [key.pub]}
network: {subnet: 10.99.7.0/24, gateway: 10.99.7.1, addressing: static}
boards:
  - {name: pi1, roles: [server], address: 10.99.7.11}
  - {name: pi2, address: 10.99.7.12, data: {device: card, format: true}}
END
"$coracle" image prepare --image stock.img --output cards

echo "==> switching both on"
ip netns add "$ns"
in_ns() { ip netns exec "$ns" "$@"; }
in_ns ip link add br0 type bridge
in_ns ip address add 10.99.7.1/24 dev br0
in_ns ip link set br0 up
began=$(date +%s)
for number in 1 2; do
    name=pi$number
    truncate -s $((4 + 8 * (number - 1)))G "cards/$name.img"
    in_ns ip tuntap add "tap$number" mode tap
    in_ns ip link set "tap$number" master br0 up
    # Where a Pi's firmware reads it.
    mcopy -n -i "cards/$name.img@@4194304" ::cmdline.txt "cards/$name.cmdline"
    in_ns qemu-system-x86_64 -M q35,accel=tcg -m 1024 -smp 2 -display none -no-reboot \
        -kernel debian/boot/vmlinuz-* -initrd debian/boot/initrd.img-* -append "$(cat "cards/$name.cmdline")" \
        -drive "file=cards/$name.img,format=raw,if=virtio,cache=unsafe" \
        -netdev "tap,id=net,ifname=tap$number,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=net,mac=52:54:00:00:00:0$number" \
        -monitor none -serial "file:cards/$name.log" -pidfile "$PWD/$name.pid" -daemonize
done

on() {
    in_ns ssh -i key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR -o ConnectTimeout=20 "admin@10.99.7.1$1" "$2" </dev/null
}
ready() {
    on 1 "sudo coracle kubeconfig --server https://10.99.7.11:6443" >kubeconfig 2>/dev/null &&
        [ "$(in_ns "$tools/kubectl-new/usr/bin/kubectl" --kubeconfig kubeconfig get nodes 2>/dev/null |
            grep -c ' Ready ')" = 2 ]
}
until ready; do
    if [ $(($(date +%s) - began)) -gt 1200 ]; then
        echo "error: the boards are not both Ready after 20 minutes" >&2
        echo "hint: $folder/cards/pi1.log and pi2.log are their consoles" >&2
        exit 1
    fi
    sleep 5
done
echo "==> both are Ready $(($(date +%s) - began)) s after they were switched on"
in_ns "$tools/kubectl-new/usr/bin/kubectl" --kubeconfig kubeconfig get nodes -o wide
on 1 'df -h / | tail -1; systemctl --failed --no-legend'
on 2 'df -h / /var/lib/coracle | tail -2; cat /proc/cmdline; systemctl --failed --no-legend'
on 2 'sudo systemctl poweroff' || :
on 1 'sudo systemctl poweroff' || :
