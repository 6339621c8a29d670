#!/bin/sh
# Writes an installer ISO to the file $2, or else to standard output: of the OS version in the folder $1, with this build's
# own ks_scripts/*.cfg.
#
#   base.iso                  a finished ISO, to which ks_scripts/ is added
#   generate                  (executable) called in the folder, told by its one argument where the ISO belongs
#   isolinux/ and ks_scripts/ what mkisofs makes an ISO of
#
# Nothing is written before everything is there that the ISO needs: what failed before the first byte can be told.
set -eu
umask 022
folder=$1
work=$(mktemp -d)

die() { printf 'make the ISO: %s\n' "$*" >&2; exit 1; }

# What is installed here, or what the base image of live ISOs has.
tool() {
    name=$1
    shift
    if command -v "$name" >/dev/null; then
        exec "$name" "$@"
    elif [ -x "/toiso/bin/$name" ]; then
        exec /toiso/lib/ld-linux-x86-64.so.2 --inhibit-cache --library-path /toiso/lib "/toiso/bin/$name" "$@"
    fi
    die "there is no $name in this image"
}

settings() { # FOLDER COMMAND...: this build's files go there
    to=$1
    shift
    cp /inbox/ks_scripts/*.cfg "$IMAGEPOOL_SECRETS/password.cfg" "$to/"
    chmod 644 "$to"/*.cfg
    printf 'Dir== %s\n%s\n' "$folder" "$*" >"$to/state.out"
}

[ -d "$folder" ] || die "there is no folder $folder in this image"
if [ -n "${2-}" ]; then
    mkdir -p "${2%/*}"
    exec >"$2"
fi

if [ -f "$folder/base.iso" ]; then
    mkdir "$work/ks_scripts"
    set -- xorriso -indev "$folder/base.iso" -outdev - -boot_image any replay \
        -map "$work/ks_scripts" /ks_scripts -commit
    settings "$work/ks_scripts" "$@"
    tool "$@"
fi

[ -d "$folder/ks_scripts" ] || die "there is no ks_scripts/ in $folder"
if [ -x "$folder/generate" ] && [ -f "$folder/generate" ]; then
    settings "$folder/ks_scripts" "$folder/generate" "$work/made.iso"
    (cd "$folder" && exec ./generate "$work/made.iso" >&2)
    [ -s "$work/made.iso" ] || die "$folder/generate ended well and wrote no ISO"
    exec cat "$work/made.iso"
fi
[ ! -e "$folder/generate" ] || printf '%s is not executable, and passed over\n' "$folder/generate" >&2

[ -s "$folder/isolinux/isolinux.bin" ] || die "there is no isolinux/isolinux.bin in $folder"
for maker in mkisofs genisoimage xorriso; do
    if command -v "$maker" >/dev/null; then break; fi
done
[ "$maker" != xorriso ] || maker='xorriso -as mkisofs'
# shellcheck disable=SC2086  # a program and its options
set -- $maker -joliet-long -input-charset utf-8 -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table -R -J -v -T "$folder"
settings "$folder/ks_scripts" "$@"
tool "$@"
