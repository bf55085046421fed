#!/bin/bash
# Prepares images for two boards out of a Debian made here, switches both on under QEMU (software
# emulation), and waits until both nodes are Ready: the first board makes the cluster, the second
# formats the data's partition on its own card and joins. Then a pod runs on each, the boards start
# again with what the distribution itself makes of its boot loader's configuration, and `coracle up`
# of this machine sets the second board up anew over SSH.
#
#   tools/boot-images.sh [ARCH] [LOADER] [FOLDER]
#
#   ARCH    x86_64 (unless said otherwise) or aarch64
#   LOADER  cmdline    as a Raspberry Pi: QEMU reads the kernel and /boot/firmware/cmdline.txt
#           grub       UEFI, GRUB of the image's own, a GPT
#           extlinux   U-Boot and the image's extlinux.conf (aarch64)
#   FOLDER  /var/tmp/coracle-boot-ARCH; the Debian in it is made once
#
# By hand, as root, after ./test.sh tools; it takes some minutes of a quiet machine (aarch64: many) and
# 4 GB below FOLDER. CORACLE_BIN is this machine's binary, CORACLE_BOARD_BIN the boards' (where they are of
# another architecture: `cargo xtask dist --arch aarch64`). KERNEL=linux-image-... is another kernel, of
# RELEASE (bookworm): RELEASE=trixie KERNEL=linux-image-arm64-16k has the pages of a Raspberry Pi 5.
# CLOUD_INIT=yes puts cloud-init into it and what it should set up beside the firmware, as Ubuntu and
# Raspberry Pi OS do; none of that may happen on the boards. It needs the packages openssh-client and, of the architecture,
#   x86_64   qemu-system-x86, for grub also ovmf
#   aarch64  qemu-system-arm, qemu-user-static (to make the Debian), for grub also qemu-efi-aarch64
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
arch=${1:-x86_64}
loader=${2:-cmdline}
folder=${3:-/var/tmp/coracle-boot-$arch}
coracle=$(realpath "${CORACLE_BIN:-target/x86_64-unknown-linux-musl/debug/coracle}")
board_binary=$(realpath "${CORACLE_BOARD_BIN:-$([ "$arch" = x86_64 ] && echo "$coracle" || echo "target/dist/coracle-$arch")}")
export PATH="$tools/disk/sbin:$tools/disk/usr/sbin:$tools/disk/usr/bin:$PATH:/usr/sbin:/sbin"
ns="coracle-boot-$$"
release=${RELEASE:-bookworm}
# Software emulation on a busy machine: this is patience, not what it takes.
patience_seconds=${PATIENCE:-3600}

case $arch in
x86_64)
    debian=amd64 efi=BOOTX64.EFI signed=x86_64-efi-signed/grubx64.efi.signed console=ttyS0
    uefi=/usr/share/OVMF/OVMF_CODE_4M.fd uefi_vars=/usr/share/OVMF/OVMF_VARS_4M.fd
    qemu="qemu-system-x86_64 -M q35,accel=tcg -cpu max"
    ;;
aarch64)
    debian=arm64 efi=BOOTAA64.EFI signed=arm64-efi-signed/grubaa64.efi.signed console=ttyAMA0
    uefi=/usr/share/AAVMF/AAVMF_CODE.fd uefi_vars=/usr/share/AAVMF/AAVMF_VARS.fd
    # A Raspberry Pi 5's core.
    qemu="qemu-system-aarch64 -M virt,accel=tcg -cpu cortex-a76"
    ;;
*)
    echo "error: no boards of $arch" >&2
    exit 2
    ;;
esac
kernel=${KERNEL:-linux-image-cloud-$debian}
more=${CLOUD_INIT:+cloud-init}
mkdir -p "$folder"
cd "$folder"

cleanup() {
    for name in pi1 pi2; do
        [ ! -e "$name.pid" ] || kill "$(cat "$name.pid")" 2>/dev/null || :
        rm -f "$name.pid"
    done
    ip netns del "$ns" 2>/dev/null || :
    # What is still mounted would be removed with the folder by the next run.
    for name in root memory; do
        ! mountpoint -q "$name" || umount "$name"
    done
    [ ! -e registered ] || foreign_programs_off
}
trap cleanup EXIT

# While the Debian is made, its programs are run by qemu-user.
binfmt=/proc/sys/fs/binfmt_misc
foreign_programs_on() {
    [ "$arch" = aarch64 ] && [ ! -e "$binfmt/qemu-aarch64" ] || return 0
    [ -e "$binfmt/register" ] || mount -t binfmt_misc none "$binfmt"
    head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":coracle-boot:M::$head:$mask:$(command -v qemu-aarch64-static):OF" >"$binfmt/register"
    touch registered
}
foreign_programs_off() {
    echo -1 >"$binfmt/coracle-boot"
    rm -f registered
}

# Run by mmdebstrap: copying all drivers that there are takes an emulator half an hour.
initramfs_of_few='set -e
    mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
    echo MODULES=list >"$1/etc/initramfs-tools/conf.d/boot-images"
    printf "%s\n" virtio_pci virtio_blk virtio_net ext4 crc32c_generic >"$1/usr/share/initramfs-tools/modules.d/boot-images"'

# A Debian with a kernel, in memory: package managers sync every file.
made="$release $kernel${more:+ $more}"
if [ "$(cat debian/.complete 2>/dev/null)" != "$made" ]; then
    echo "==> making a Debian for $arch"
    rm -rf debian memory && mkdir memory
    foreign_programs_on
    mount -t tmpfs -o size=3g boot "$PWD/memory"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    TMPDIR=$PWD/memory "$tools/mmdebstrap/usr/bin/mmdebstrap" --quiet --mode=root --variant=essential \
        --architectures="$debian" --skip=check/qemu --essential-hook="$initramfs_of_few" \
        --include="apt,$kernel,initramfs-tools,systemd-sysv,udev,dbus,openssh-server,sudo,e2fsprogs,iproute2,procps,zstd,busybox-static,fdisk,systemd-timesyncd,u-boot-menu,grub2-common,grub-efi-$debian-bin,grub-efi-$debian-signed${more:+,$more}" \
        "$release" memory/root "$mirror" && cp -a memory/root debian && echo "$made" >debian/.complete
    umount memory && rmdir memory
    [ ! -e registered ] || foreign_programs_off
fi
[ "$loader" != extlinux ] || [ -e u-boot/usr/lib/u-boot ] || {
    apt-get download -q u-boot-qemu >/dev/null && dpkg -x u-boot-qemu_*.deb u-boot && rm u-boot-qemu_*.deb
}

# --- the image, as a distribution would ship it -------------------------------------------------------
echo "==> packing it as a stock image that boots by $loader"
rm -rf root cards && mkdir root
root_id=c0ac1e00-0000-4000-8000-000000000002
# An emulated board on a busy machine takes longer for all than systemd waits.
patient="systemd.default_timeout_start_sec=1200"
words="console=$console root=PARTUUID=$root_id rootwait $patient"
linux=$(cd debian/boot && echo vmlinuz-*) initrd=$(cd debian/boot && echo initrd.img-*)
boot_at=/boot/efi
rm -rf debian/boot/grub debian/boot/extlinux debian/boot/firmware debian/boot/efi debian/etc/default/grub
truncate -s 0 fat.img && truncate -s 40M fat.img && mkfs.fat -F 32 -n BOOTFS fat.img >/dev/null
case $loader in
cmdline)
    boot_at=/boot/firmware
    words="console=$console root=PARTUUID=deadbeef-02 rootwait $patient"
    echo "$words init=/usr/lib/raspberrypi-sys-mods/firstboot${more:+ ds=nocloud}" >cmdline.txt
    mcopy -o -i fat.img cmdline.txt ::cmdline.txt
    ;;
grub)
    mkdir -p debian/boot/grub
    printf 'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=%s %s"\n' "$console" "$patient" \
        >debian/etc/default/grub
    # What update-grub makes, as far as it matters: it cannot find out here what it will start from.
    cat >debian/boot/grub/grub.cfg <<END
set timeout=0
menuentry 'Debian GNU/Linux' --class debian {
	insmod part_gpt
	insmod ext2
	search --no-floppy --fs-uuid --set=root $root_id
	linux	/boot/$linux $words ro  quiet
	initrd	/boot/$initrd
}
END
    printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' $root_id >grub.cfg
    mmd -i fat.img ::EFI ::EFI/BOOT ::EFI/debian
    mcopy -i fat.img "debian/usr/lib/grub/$signed" "::EFI/BOOT/$efi"
    mcopy -i fat.img grub.cfg ::EFI/debian/grub.cfg
    ;;
extlinux)
    mkdir -p debian/boot/extlinux
    printf 'default l0\ntimeout 1\n\nlabel l0\n\tlinux /boot/%s\n\tinitrd /boot/%s\n\tappend %s\n' \
        "$linux" "$initrd" "$words" >debian/boot/extlinux/extlinux.conf
    ;;
*)
    echo "error: no boot loader $loader" >&2
    exit 2
    ;;
esac
mkdir -p "debian$boot_at"
if [ -n "$more" ]; then
    printf '#cloud-config\nhostname: from-cloud-init\nssh_deletekeys: true\nusers: [{name: cloud}]\n' >user-data
    printf 'instance-id: stock\n' >meta-data
    printf 'version: 2\nethernets: {all: {match: {name: "e*"}, dhcp4: true}}\n' >network-config
    mcopy -o -i fat.img user-data meta-data network-config ::
    printf 'datasource_list: [NoCloud, None]\ndatasource: {NoCloud: {seedfrom: "file://%s/"}}\n' "$boot_at" \
        >debian/etc/cloud/cloud.cfg.d/99_board.cfg
fi
mount --bind debian root
umount_root() { umount root && rmdir root; }
case $loader in
cmdline) ids="deadbeef-01 deadbeef-02" ;;
*) ids="c0ac1e00-0000-4000-8000-000000000001 $root_id" ;;
esac
cat >debian/etc/fstab <<END
PARTUUID=${ids% *} $boot_at vfat defaults,x-systemd.device-timeout=20min 0 2
PARTUUID=${ids#* } / ext4 defaults,noatime 0 1
END
root_mib=$(($(du -sxm debian | cut -f1) * 5 / 4 + $(stat -c %s "$board_binary") / 1048576 + 64))
rm -f ext.img && truncate -s "${root_mib}M" ext.img && mke2fs -q -t ext4 -U $root_id -d root ext.img
umount_root
rm -f stock.img && truncate -s $((root_mib + 46))M stock.img
case $loader in
cmdline)
    printf 'label: dos\nlabel-id: 0xdeadbeef\nstart=4MiB, size=40MiB, type=c\nstart=44MiB, size=%sMiB, type=83\n' \
        "$root_mib" | sfdisk -q stock.img
    ;;
*)
    # "LegacyBIOSBootable" is what U-Boot looks for.
    printf 'label: gpt\nstart=4MiB, size=40MiB, type=uefi, uuid=%s\nstart=44MiB, size=%sMiB, type=linux, uuid=%s, attrs=LegacyBIOSBootable\n' \
        "${ids% *}" "$root_mib" "${ids#* }" | sfdisk -q stock.img
    ;;
esac
dd if=fat.img of=stock.img bs=1M seek=4 conv=notrunc,sparse status=none
dd if=ext.img of=stock.img bs=1M seek=44 conv=notrunc,sparse status=none
rm fat.img ext.img

# --- two boards of it ---------------------------------------------------------------------------------
echo "==> preparing images for two boards"
[ -e key ] || ssh-keygen -q -t ed25519 -N '' -f key
[ -e token ] || (umask 077 && echo c0ffeec0ffeec0ffee >token)
cat >cluster.yaml <<END
name: boot
token: {file: token}
ssh: {user: admin, key: key, authorizedKeys: [key.pub], knownHosts: known_hosts}
network: {subnet: 10.99.7.0/24, gateway: 10.99.7.1, addressing: static}
boards:
  - {name: pi1, roles: [server], address: 10.99.7.11}
  - {name: pi2, address: 10.99.7.12, data: {device: card, format: true}}
END
rm -f known_hosts
"$coracle" image prepare --image stock.img --output cards --binary "$board_binary"

ip netns add "$ns"
in_ns() { ip netns exec "$ns" "$@"; }
in_ns ip link set lo up
in_ns ip link add br0 type bridge
in_ns ip address add 10.99.7.1/24 dev br0
in_ns ip link set br0 up

# switch_on NUMBER
switch_on() {
    name=pi$1
    firmware=()
    case $loader in
    cmdline)
        # Where a Pi's firmware reads it.
        mcopy -n -i "cards/$name.img@@4194304" ::cmdline.txt "cards/$name.cmdline" 2>/dev/null || :
        firmware=(-kernel "debian/boot/$linux" -initrd "debian/boot/$initrd" -append "$(cat "cards/$name.cmdline")")
        ;;
    grub)
        # As flash with variables beside it: as one read-only file it does not come up again after a restart.
        cp "$uefi_vars" "cards/$name.vars"
        firmware=(-drive "if=pflash,format=raw,readonly=on,file=$uefi" -drive "if=pflash,format=raw,file=cards/$name.vars")
        ;;
    extlinux) firmware=(-bios u-boot/usr/lib/u-boot/qemu_arm64/u-boot.bin) ;;
    esac
    # shellcheck disable=SC2086  # words
    in_ns $qemu -m 1024 -smp 2 -display none "${firmware[@]}" \
        -drive "file=cards/$name.img,format=raw,if=virtio,cache=unsafe" -device virtio-rng-pci \
        -netdev "tap,id=net,ifname=tap$1,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=net,mac=52:54:00:00:00:0$1" \
        -monitor none -serial "file:cards/$name.log" -pidfile "$PWD/$name.pid" -daemonize
}
on() {
    in_ns ssh -i key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR -o ConnectTimeout=20 "admin@10.99.7.1$1" "$2" </dev/null
}
kubectl() { in_ns "$tools/kubectl-new/usr/bin/kubectl" --kubeconfig kubeconfig "$@"; }
ready() {
    on 1 "sudo coracle kubeconfig --server https://10.99.7.11:6443" >kubeconfig 2>/dev/null &&
        [ "$(kubectl get nodes 2>/dev/null | grep -c ' Ready ')" = 2 ]
}
# wait_for WHAT COMMAND...: until it succeeds.
wait_for() {
    what=$1
    shift
    began=$(date +%s)
    until "$@"; do
        if [ $(($(date +%s) - began)) -gt "$patience_seconds" ]; then
            echo "error: waited $patience_seconds s for this: $what" >&2
            echo "hint: $folder/cards/pi1.log and pi2.log are the boards' consoles" >&2
            exit 1
        fi
        sleep 5
    done
    echo "==> $what after $(($(date +%s) - began)) s"
}

echo "==> switching both on"
for number in 1 2; do
    truncate -s $((4 + 8 * (number - 1)))G "cards/pi$number.img"
    in_ns ip tuntap add "tap$number" mode tap
    in_ns ip link set "tap$number" master br0 up
    switch_on "$number"
done
wait_for "both nodes are Ready" ready
kubectl get nodes -o wide
for number in 1 2; do
    on $number 'uname -srm; getconf PAGE_SIZE; cat /proc/cmdline; df -h / /var/lib/coracle | tail -n +2
        systemctl --failed --no-legend; systemd-analyze | head -1
        for unit in coracle coracle-agent; do
            pid=$(systemctl show -P MainPID $unit); [ "$pid" = 0 ] || sudo grep -H "^Rss\|^Pss:" /proc/$pid/smaps_rollup
        done'
done

if [ -n "$more" ]; then
    echo "==> cloud-init has done nothing"
    on 2 'cloud-init status; [ "$(hostname)" = pi2 ] && ! getent passwd cloud && ! ls /etc/netplan/50-cloud-init.yaml'
fi

echo "==> a pod on each board"
mkdir -p layer/bin layer/tmp && cp debian/bin/busybox layer/bin/
for applet in sh sleep uname echo cat; do ln -sf busybox "layer/bin/$applet"; done
tar -C layer -cf layer.tar .
printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    $debian "$(sha256sum <layer.tar | cut -d' ' -f1)" >config.json
echo '[{"Config":"config.json","RepoTags":["boot/busybox:1"],"Layers":["layer.tar"]}]' >manifest.json
tar -cf busybox.tar manifest.json config.json layer.tar
rm -rf layer layer.tar config.json manifest.json
for number in 1 2; do
    in_ns ssh -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        "admin@10.99.7.1$number" 'cat >busybox.tar && sudo coracle image import busybox.tar' <busybox.tar
    kubectl apply --validate=false -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: on-pi$number}
spec:
  nodeName: pi$number
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: boot/busybox:1, imagePullPolicy: Never, command: [sh, -c, "echo hello from \$(uname -m); exec sleep 100000"]}
END
done
kubectl wait --for=condition=Ready --timeout="${patience_seconds}s" pod/on-pi1 pod/on-pi2
kubectl get pods -o wide
for number in 1 2; do
    kubectl logs on-pi$number
    kubectl exec on-pi$number -- uname -m
done

# What the distribution makes of its boot loader's configuration by itself, with the next kernel.
case $loader in
grub) anew="sudo update-grub 2>&1 | tail -1; grep -c '^[[:space:]]linux.*cgroup_enable=memory' /boot/grub/grub.cfg" ;;
extlinux) anew="sudo u-boot-update && grep append /boot/extlinux/extlinux.conf" ;;
*) anew= ;;
esac
if [ -n "$anew" ]; then
    echo "==> what the distribution makes of the boot loader's configuration by itself has the flags as well"
    on 2 "$anew"
    boot_id=$(on 2 'cat /proc/sys/kernel/random/boot_id')
    on 2 'sudo systemctl reboot' || :
    another_boot() { id=$(on 2 'cat /proc/sys/kernel/random/boot_id' 2>/dev/null) && [ "$id" != "$boot_id" ]; }
    wait_for "the second board is back" another_boot
    on 2 'cat /proc/cmdline; grep -o memory /sys/fs/cgroup/cgroup.controllers'
    wait_for "both nodes are Ready" ready
fi

echo "==> coracle up from here, over SSH: first nothing to change, then the second board anew"
up() { HOME=$PWD in_ns "$coracle" "$@" --file cluster.yaml; }
up up --accept-new-host-keys --yes --kubeconfig merged --binary "$board_binary"
up check || :
[ "$arch" = "$(uname -m)" ] || up up --dry-run --kubeconfig merged || echo "(refused, as it should be)"
up down --yes --no-backup --board pi2
up up --yes --kubeconfig merged --binary "$board_binary"
wait_for "both nodes are Ready" ready
up status
on 2 'sudo systemctl poweroff' || :
on 1 'sudo systemctl poweroff' || :
