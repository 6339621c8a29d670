#!/bin/sh
# Decides what `make clean` takes away: what the other scripts here started and made, and nothing else. An engine that we did
# not start keeps running and loses only our base image. Debian packages stay: others may use them by now.
. "$(dirname "$0")/common.sh"

clean_tree() {
  cd "$top"
  rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov ./*.egg-info
  find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
}

# Ours, by their label; refused by the engine, and then kept, where a container uses one.
remove_images() {
  for image in "$BASE_IMAGE" "$INSTALLER_IMAGE"; do
    [ -n "$(engine GET "/images/$image/json" Config Labels imagepool.recipe)" ] || continue
    say "removing the image $image"
    engine DELETE "/images/$image" >/dev/null || say "a container still uses it: kept"
  done
}

# end_process PID SECONDS: asks it to end, waits, and makes it end.
end_process() {
  kill "$1" 2>/dev/null || return 0
  _tries=$(($2 * 10))
  while lives "$1"; do
    if [ "$_tries" = 0 ]; then kill -9 "$1" 2>/dev/null || :; fi
    [ "$_tries" -gt -20 ] || die "process $1 does not end"
    sleep 0.1
    _tries=$((_tries - 1))
  done
}

stop_ours() {
  if ours_runs; then
    say "stopping the Docker Engine in $engine_root, and its containers"
    for container in $(engine GET '/containers/json?all=1' .Id); do
      engine DELETE "/containers/$container?force=1" >/dev/null || :
    done
    end_process "$(cat "$engine_pidfile")" 30
  fi
  # Containers outlive a killed engine (live-restore): their keepers name our folder, their processes are the keepers' children.
  for keeper in $(processes_of "$engine_run/engine"); do
    children=$(cat "/proc/$keeper/task/$keeper/children" 2>/dev/null) || children=
    for child in $children; do kill -9 "$child" 2>/dev/null || :; done
    end_process "$keeper" 5
  done
}

# processes_of FOLDER: containerd and its shims whose command line names a place in that folder.
processes_of() {
  for _process in /proc/[0-9]*; do
    _command=$(tr '\0' ' ' 2>/dev/null <"$_process/cmdline") || continue
    case "$_command" in
      containerd*" $1/"* | /*/containerd*" $1/"*) printf '%s\n' "${_process#/proc/}" ;;
    esac
  done
}

# The engine leaves its bridge and firewall rules behind, the worst of them a FORWARD policy of DROP.
restore_network() {
  [ -s "$engine_run/network" ] || return 0
  { read -r ip_forward; read -r forward_policy; } <"$engine_run/network"
  for table in filter nat; do
    iptables -t $table -S | sed -n '/^-A.*\(DOCKER\|docker0\)/s/^-A/-D/p' | while read -r rule; do
      # shellcheck disable=SC2086  # a rule in the words of iptables itself
      iptables -t $table $rule
    done
    iptables -t $table -S | sed -n 's/^-N \(DOCKER.*\)/\1/p' | while read -r chain; do iptables -t $table -X "$chain"; done
  done
  [ -z "$forward_policy" ] || iptables -P FORWARD "$forward_policy"
  printf '%s\n' "$ip_forward" >/proc/sys/net/ipv4/ip_forward
  ! [ -e /sys/class/net/docker0 ] || ip link delete docker0
}

remove_engine_folders() {
  awk '{ print $2 }' /proc/mounts | sort -r | while read -r mounted; do
    case "$mounted" in
      "$engine_root" | "$engine_root"/* | "$engine_run" | "$engine_run"/*) umount "$mounted" || umount -l "$mounted" ;;
    esac
  done
  # A killed engine leaves its socket; the file "network" says that there was one of ours.
  if [ -e "$engine_run/network" ] && ! engine_answers; then rm -f "$engine_socket"; fi
  rm -rf --one-file-system "$engine_root" "$engine_run"
  rm -f "$engine_log"
  # Their parent folders, if nothing else lies there.
  rmdir "$(dirname "$engine_root")" "$(dirname "$engine_log")" 2>/dev/null || :
}

clean_engine() {
  DOCKER_HOST=unix://$engine_socket
  stop_ours
  restore_network
  remove_engine_folders
}

case "${1-}" in
  engine) clean_engine ;; # for itself, as root
  tree) clean_tree ;;     # for itself, as root
  '')
    if [ -e "$engine_root" ] || [ -e "$engine_run" ]; then as_root "$here/clean.sh" engine; fi
    if engine_answers; then remove_images; fi
    clean_tree 2>/dev/null || as_root "$here/clean.sh" tree # some of it may be root's
    say "Clean. Debian packages that were installed stay."
    ;;
  *) die "usage: clean.sh" ;;
esac
