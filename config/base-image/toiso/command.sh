#!/bin/sh
# Turns the file system of this container into a bootable ISO (BIOS and UEFI, CD and disk).
#
#   /toiso/command.sh [-q]     the ISO is at /toiso/iso_path.sh's path; without -q it also goes to standard output
#
# Needs no capability, no network, no mount and 300 MB of memory. Progress and errors go to standard error.
set -eu
exec 3>&1 1>&2
umask 022
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

work=/toiso/work
iso=$work/iso

say() { printf 'iso: %s\n' "$*"; }
die() { say "error: $*"; exit 1; }

tool() { # NAME ARGUMENT...: with our own loader and libraries, whatever became of the system's
    name=$1
    shift
    /toiso/lib/ld-linux-x86-64.so.2 --inhibit-cache --library-path /toiso/lib "/toiso/bin/$name" "$@"
}

kernels_last_installed_first() {
    # By time of change, not by version: 6.1.0-9-amd64 and 6.1.0-9-cloud-amd64 have no order.
    find /boot -maxdepth 1 -name 'vmlinuz-*' -printf '%C@ %f\n' | sort -rn | sed 's/.* vmlinuz-//'
}

choose_kernel() {
    for version in ${kernel:-$(kernels_last_installed_first)}; do
        if [ -s "/boot/vmlinuz-$version" ] && [ -s "/boot/initrd.img-$version" ]; then
            kernel=$version
            return
        fi
    done
    die "no kernel with an initrd in /boot${kernel:+ of version $kernel}: is a linux-image package installed?"
}

add_kernel() {
    say "kernel $kernel"
    cp "/boot/vmlinuz-$kernel" "$iso/live/vmlinuz"
    cp "/boot/initrd.img-$kernel" "$iso/live/initrd.img"
}

# What the squashfs leaves out (first list) or has otherwise than the container (second list). mksquashfs never
# descends into what is left out whole, so mounts below /toiso stay out as well.
write_squashfs_lists() {
    cat >"$work/left-out" <<END
toiso
inbox
outbox
.dockerenv
proc
sys
dev
run
tmp
etc/hostname
etc/hosts
etc/resolv.conf
etc/machine-id
var/lib/apt/lists/*
var/cache/apt/*
END
    if [ "$(readlink /usr/sbin/policy-rc.d)" = /toiso/policy-rc.d ]; then
        echo usr/sbin/policy-rc.d >>"$work/left-out"
    fi
    printf '%s\n' "$hostname" >"$work/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n' "$hostname" >"$work/hosts"
    cat >"$work/otherwise" <<END
/proc d 555 0 0
/sys d 555 0 0
/dev d 755 0 0
/run d 755 0 0
/tmp d 1777 0 0
/etc/hostname f 644 0 0 cat $work/hostname
/etc/hosts f 644 0 0 cat $work/hosts
/etc/resolv.conf s 777 0 0 ../run/systemd/resolve/stub-resolv.conf
/etc/machine-id f 444 0 0 true
END
}

add_file_system() {
    say "file system, compressed with $compression"
    write_squashfs_lists
    # Of all cores at most 8: each has threads and buffers of its own, and a build has limits on both.
    cores=$(nproc)
    [ "$cores" -le 8 ] || cores=8
    # Unreadable files are an error: mksquashfs would put empty ones in their place.
    # shellcheck disable=SC2086 # the setting holds several words
    tool mksquashfs / "$iso/live/filesystem.squashfs" -comp $compression -noappend -no-progress \
        -exit-on-error -mem 64M -processors "$cores" -wildcards \
        -pf "$work/otherwise" -ef "$work/left-out" >"$work/mksquashfs.log" ||
        die "mksquashfs failed; a file that root cannot read here? (see above)"
    # "31.42% of uncompressed filesystem size (259530.24 Kbytes)"
    sed -n 's/.*of uncompressed filesystem size (\([0-9]*\).*/\1/p' "$work/mksquashfs.log" >"$work/kbytes"
    [ -s "$work/kbytes" ] || die "mksquashfs did not say how large the file system is"
    echo $(($(cat "$work/kbytes") * 1024)) >"$iso/live/filesystem.size"
    # shellcheck disable=SC2016 # dpkg's variables, not the shell's
    dpkg-query --show --showformat '${Package}\t${Version}\n' >"$iso/live/filesystem.packages"
}

add_boot_loaders() {
    say "boot loaders"
    cd /toiso/boot
    cp isolinux.bin ldlinux.c32 libutil.c32 menu.c32 "$iso/isolinux/"
    cp efi.img "$iso/boot/grub/"
    cp BOOTX64.EFI "$iso/EFI/BOOT/" # for sticks made by copying the files
    cat >"$iso/isolinux/isolinux.cfg" <<END
SERIAL 0 115200
UI menu.c32
MENU TITLE $volume_id
TIMEOUT 10
DEFAULT live
LABEL live
  MENU LABEL Live system
  LINUX /live/vmlinuz
  INITRD /live/initrd.img
  APPEND $kernel_options
LABEL toram
  MENU LABEL Live system, copied to memory (the medium may be removed)
  LINUX /live/vmlinuz
  INITRD /live/initrd.img
  APPEND $kernel_options toram
END
    cat >"$iso/boot/grub/grub.cfg" <<END
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
set timeout=1
menuentry "Live system" {
  linux /live/vmlinuz $kernel_options
  initrd /live/initrd.img
}
menuentry "Live system, copied to memory (the medium may be removed)" {
  linux /live/vmlinuz $kernel_options toram
  initrd /live/initrd.img
}
END
}

add_checksums() {
    say "checksums"
    cd "$iso"
    # Not of isolinux/: xorriso writes the boot info table into isolinux.bin.
    find . -type f ! -path './isolinux/*' -exec md5sum {} + >"$work/md5sum.txt"
    mv "$work/md5sum.txt" .
}

write_iso() {
    say "ISO"
    # -iso-level 3: the squashfs may be larger than 4 GB
    tool xorriso -no_rc -as mkisofs -quiet -r -J -iso-level 3 -V "$volume_id" -o "$work/live.iso" \
        -isohybrid-mbr /toiso/boot/isohdpfx.bin -c isolinux/boot.cat \
        -b isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table \
        -eltorito-alt-boot -e boot/grub/efi.img -no-emul-boot -isohybrid-gpt-basdat \
        "$iso" || die "xorriso failed"
    mkdir -p "$(dirname "$iso_image")"
    mv "$work/live.iso" "$iso_image"
    say "$iso_image, $(($(stat -c %s "$iso_image") / 1000000)) MB"
}

quiet=no
case ${1-} in
    -q) quiet=yes ;;
    '') ;;
    *) say "usage: /toiso/command.sh [-q]"; exit 2 ;;
esac

# shellcheck source=config/base-image/toiso/configuration.sh
. /toiso/configuration.sh
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# The former ISO goes first: a run that fails must not leave it as if it were the result.
rm -rf "$work" "$iso_image"
mkdir -p "$iso/live" "$iso/isolinux" "$iso/boot/grub" "$iso/EFI/BOOT"

choose_kernel
add_kernel
add_file_system
add_boot_loaders
add_checksums
write_iso
[ "$quiet" = yes ] || cat "$iso_image" >&3
