#!/bin/sh
# Prints where command.sh puts the ISO, without a newline.
set -eu
# shellcheck source=config/base-image/toiso/configuration.sh
. /toiso/configuration.sh
printf %s "$iso_image"
