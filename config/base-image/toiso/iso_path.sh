#!/bin/sh
# Prints where command.sh puts the ISO, without a newline.
set -eu
. /toiso/configuration.sh
printf %s "$iso_image"
