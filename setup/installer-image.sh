#!/bin/sh
# Makes the image for installer ISOs (INSTALLER_IMAGE), where it must be made (recipe-image.sh).
#
# `installer-image.sh plan` prints what is missing (see plan.sh).
. "$(dirname "$0")/common.sh"

image=$INSTALLER_IMAGE
recipe="$top/config/installer-image"
depends="$top/config/base-image"
what="make the image $INSTALLER_IMAGE from Debian packages and import it into the engine (three minutes)"
. "$here/recipe-image.sh"

make_image "$@"
