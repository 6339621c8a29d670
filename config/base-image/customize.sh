#!/bin/sh
# mmdebstrap's customize hook: makes the Debian tree $1 a live system and adds our one folder, /toiso.
# What a user must not find in the booted system belongs into /toiso and nowhere else.
set -eu
umask 022
root=$1
recipe=$(cd "$(dirname "$0")" && pwd)
say() { printf 'base image: %s\n' "$*"; }

# --- a plain live system ---------------------------------------------------------------------------
say "settings of the live system"
cp -R --no-preserve=mode,ownership "$recipe/system/." "$root/"
chroot "$root" systemctl --quiet enable systemd-networkd.service
# mmdebstrap copied the building machine's; the engine mounts its own over these three.
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
echo live >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 live\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
# Every boot gets a machine id of its own.
: >"$root/etc/machine-id"
# Without this folder the journal stays in memory, where the live system's disk is anyway; squashfs would lose its ACLs.
rm -rf "$root/var/log/journal"

# --- /toiso ----------------------------------------------------------------------------------------
say "tools of /toiso"
toiso=$root/toiso
install -d "$toiso/bin" "$toiso/lib" "$toiso/boot"
install -m 755 "$recipe/toiso/command.sh" "$recipe/toiso/iso_path.sh" "$recipe/toiso/policy-rc.d" "$toiso"
install -m 644 "$recipe/toiso/configuration.sh" "$toiso"
# Services of packages must not start in the container, but must in the live system. mmdebstrap has a file of its own
# there and removes it after this hook; a link that, seen from outside, leads nowhere stays.
ln -sf /toiso/policy-rc.d "$root/usr/sbin/policy-rc.d"

# The tools are unpacked here but never installed, so the live system does not hold them.
install -d "$toiso/unpacked" "$toiso/debs/partial"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --download-only --no-install-recommends \
    -o Dir::Cache::archives="$toiso/debs" install \
    squashfs-tools xorriso isolinux syslinux-common grub-efi-amd64-bin grub-common mtools
for deb in "$toiso"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$toiso/unpacked"
done

unpacked=/toiso/unpacked
run() { # PROGRAM ARGUMENT...: one of the unpacked programs, in the tree
    program=$1
    shift
    chroot "$root" env LD_LIBRARY_PATH=$unpacked/usr/lib/x86_64-linux-gnu:$unpacked/lib/x86_64-linux-gnu \
        "$program" "$@"
}

# mksquashfs and xorriso run in users' containers: with libraries and a loader of their own, a user's
# commands can upgrade or break libc without breaking them.
for tool in mksquashfs xorriso; do
    cp "$root$unpacked/usr/bin/$tool" "$toiso/bin/"
    run ldd "/toiso/bin/$tool" >"$toiso/ldd"
    awk '$2 == "=>" { print $3 }' "$toiso/ldd" >"$toiso/libraries"
    while read -r library; do
        run cp -L "$library" /toiso/lib/
    done <"$toiso/libraries"
done
# The loader, and a library that libc itself loads when a thread is cancelled.
run cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libgcc_s.so.1 /toiso/lib/

# Boot loaders: for BIOS as they are, for UEFI one program that finds the ISO and reads the menu from it.
for file in ISOLINUX/isolinux.bin ISOLINUX/isohdpfx.bin \
    syslinux/modules/bios/ldlinux.c32 syslinux/modules/bios/libutil.c32 syslinux/modules/bios/menu.c32; do
    install -m 644 "$root$unpacked/usr/lib/$file" "$toiso/boot/"
done
cat >"$toiso/early.cfg" <<'END'
search --no-floppy --set=root --file /live/filesystem.squashfs
set prefix=($root)/boot/grub
configfile /boot/grub/grub.cfg
END
run $unpacked/usr/bin/grub-mkimage -O x86_64-efi -d $unpacked/usr/lib/grub/x86_64-efi -p /boot/grub \
    -c /toiso/early.cfg -o /toiso/boot/BOOTX64.EFI \
    part_gpt part_msdos fat iso9660 search search_fs_file normal configfile linux test echo \
    terminal serial all_video efi_gop
# The same program in a FAT file system, which is where a firmware looks on a CD.
efi=/toiso/boot/efi.img
truncate -s 4M "$root$efi"
run $unpacked/usr/bin/mformat -i $efi -v EFI ::
run $unpacked/usr/bin/mmd -i $efi ::/EFI ::/EFI/BOOT
run $unpacked/usr/bin/mcopy -i $efi /toiso/boot/BOOTX64.EFI ::/EFI/BOOT/

rm -rf "$toiso/unpacked" "$toiso/debs" "$toiso/early.cfg" "$toiso/ldd" "$toiso/libraries"
