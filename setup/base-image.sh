#!/bin/sh
# Makes the base image for live ISOs (BASE_IMAGE), where it must be made (recipe-image.sh).
#
# `base-image.sh plan` prints what is missing (see plan.sh).
. "$(dirname "$0")/common.sh"

image=$BASE_IMAGE
recipe="$top/config/base-image"
depends=
what="make the base image $BASE_IMAGE from Debian packages and import it into the engine (one to two minutes)"
. "$here/recipe-image.sh"

make_image "$@"
