#!/bin/sh
# Decides how the demo, the tests and the measurements get the rights of root: network namespaces, the engine's socket, and
# what containers leave behind all belong to root. Root runs the command as it is; others run it by sudo, and get what it
# wrote into this folder afterwards.
. "$(dirname "$0")/common.sh"

[ "$(id -u)" != 0 ] || exec "$@"
status=0
as_root "$@" || status=$?
as_root chown -R --from=root "$(id -u):$(id -g)" "$top"
exit "$status"
