#!/bin/bash
# Makes the image in which installer ISOs are made, and imports it into the Docker engine: a finished ISO of a live Debian
# that can install itself, /os/base.iso, and what adds a machine's settings to it.
#
#   config/installer-image/build.sh NAME
#
# Environment: RECIPE_HASH, TMPDIR  as for the base image
#              KERNEL               kernel package; linux-image-cloud-amd64 knows virtual machines only (and saves 110 MB)
# Runs as root. Standard output stays empty.
set -euo pipefail
exec 1>&2

[ $# -eq 1 ] || { echo "usage: build.sh NAME"; exit 1; }
[ "$(id -u)" -eq 0 ] || { echo "installer image: run this as root: setup/as-root.sh $0 $1"; exit 1; }
name=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
system=$name-system

work=$(mktemp -d "${TMPDIR:-/var/tmp}/installer-image.XXXXXX")
clean_up() {
    docker rm -f "installer-$$" >/dev/null 2>&1 || :
    docker rmi -f "$system" >/dev/null 2>&1 || :
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

HOOK=$here/customize.sh RECIPE_HASH='' KERNEL=${KERNEL:-linux-image-amd64} \
    bash "$here/../base-image/build.sh" "$system"

echo "installer image: the ISO"
tree=$work/tree
mkdir -p "$tree"/{bin,os,tmp,toiso/bin}
chmod 1777 "$tree/tmp"
docker run --name "installer-$$" --network none --cap-drop ALL "$system" /toiso/command.sh >"$tree/os/base.iso"
docker cp "installer-$$:/toiso/bin/xorriso" "$tree/toiso/bin/"
docker cp "installer-$$:/toiso/lib" "$tree/toiso/"

# A shell and its tools: the busybox that nodes run commands with anyway.
cp /bin/busybox "$tree/bin/busybox"
for applet in sh cat chmod cp mkdir mktemp mv rm sed; do
    ln -s busybox "$tree/bin/$applet"
done

tar -C "$tree" -c . | docker import -c "LABEL imagepool.recipe=\"${RECIPE_HASH:-}\"" -c 'CMD ["/bin/sh"]' - "$name" >/dev/null
echo "installer image: $name is there, $(du -sm "$tree" | cut -f1) MB, after $SECONDS s"
