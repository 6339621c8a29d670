#!/bin/sh
# A hook of mmdebstrap: makes the live Debian tree $1 one that takes its settings from the medium, and can install itself.
set -eu
umask 022
root=$1
recipe=$(cd "$(dirname "$0")" && pwd)

# After the base image's hook, which unpacks boot loaders that must not be installed then. The host's apt, as it was told.
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --no-install-recommends -o DPkg::Chroot-Directory="$root" install \
    fdisk dosfstools e2fsprogs grub2-common grub-pc-bin grub-efi-amd64-bin
cp -R --no-preserve=mode,ownership "$recipe/system/." "$root/"
chmod 755 "$root/usr/lib/imagepool/apply" "$root/usr/lib/imagepool/report" "$root/usr/lib/imagepool/install"
for unit in settings report install; do
    chroot "$root" systemctl --quiet enable "imagepool-$unit.service"
done
# Nobody is let in without the password.
rm -r "$root"/etc/systemd/system/getty@tty1.service.d "$root"/etc/systemd/system/serial-getty@ttyS0.service.d
cat >>"$root/toiso/configuration.sh" <<'END'
volume_id=INSTALL
# Interfaces are called eth0, eth1, as requests for ISOs do.
kernel_options="$kernel_options net.ifnames=0"
END
