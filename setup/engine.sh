#!/bin/sh
# Decides which Docker Engine builds run on. One that answers is used as it is. Otherwise the distribution's is installed
# and started: by systemd where that runs, else by ourselves with folders of our own, so that `make clean` can take all of
# it away again. Never a second engine beside a living one: they would break each other's bridge and firewall rules.
#
# `engine.sh plan` prints what is missing (see plan.sh); `engine.sh start` is for itself, as root.
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

by_systemd() { [ "$engine_socket" = /var/run/docker.sock ] && [ -d /run/systemd/system ]; }

plan() {
  say packages $packages_node
  engine_answers && return
  say packages $packages_engine
  if by_systemd; then
    say step "start the Docker Engine (docker.service)"
  else
    say step "start the Docker Engine (data in $engine_root, log in $engine_log)"
  fi
}

set_up() {
  "$here/packages.sh" $packages_node
  if engine_answers; then return; fi
  [ "$DOCKER_HOST" = "unix://$engine_socket" ] ||
    die "DOCKER_HOST is $DOCKER_HOST, but no engine answers there. Start it, or unset DOCKER_HOST to have one set up here."
  "$here/packages.sh" $packages_engine
  as_root "$here/engine.sh" start
  [ "$(id -u)" = 0 ] || [ -w "$engine_socket" ] ||
    say "The engine belongs to root: run imagepool by sudo, or join the group docker, which is as good as being root."
}

# wait_for SECONDS [PROCESS]: until the engine answers; fails when it does not in time, or when that process ended.
wait_for() {
  _tries=$(($1 * 5))
  while [ "$_tries" -gt 0 ]; do
    if [ -S "$engine_socket" ] && engine_answers; then return 0; fi
    [ -z "${2-}" ] || lives "$2" || return 1
    sleep 0.2
    _tries=$((_tries - 1))
  done
  return 1
}

# The interface of the default route says what fits through; a container with a larger MTU loses large packets.
default_mtu() {
  _interface=$(awk '$2 == "00000000" && $8 == "00000000" { print $1; exit }' /proc/net/route)
  cat "/sys/class/net/${_interface:-none}/mtu" 2>/dev/null || echo 1500
}

# What the engine changes in the network's settings, for clean.sh to put back.
remember_network() {
  [ ! -e "$engine_run/network" ] || return 0
  { cat /proc/sys/net/ipv4/ip_forward; iptables -S FORWARD | sed -n 's/^-P FORWARD //p'; } >"$engine_run/network"
}

# An engine that was killed leaves these behind. By now their numbers may be other processes', or dead ones nobody has waited
# for; the new engine would take either for a living engine and containerd.
forget_killed() {
  rm -f "$engine_pidfile"
  _pidfile="$engine_run/engine/containerd/containerd.pid"
  _command=$(tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$_pidfile" 2>/dev/null)/cmdline") || _command=
  case "$_command" in *containerd*) ;; *) rm -f "$_pidfile" ;; esac
}

start_ours() {
  if ! grep -qE ' (cgroup|cgroup2) ' /proc/mounts; then
    say "mounting cgroups"
    mount -t cgroup2 none /sys/fs/cgroup || die "cannot mount cgroups, without which there are no containers"
  fi
  say "starting the Docker Engine (data in $engine_root, log in $engine_log)"
  mkdir -p "$engine_root" "$(dirname "$engine_log")" "$(dirname "$engine_socket")"
  remember_network
  forget_killed
  : >>"$engine_log"
  begin=$(wc -c <"$engine_log")
  setsid nohup dockerd --host="unix://$engine_socket" --data-root="$engine_root" --exec-root="$engine_run/engine" \
    --pidfile="$engine_pidfile" --live-restore --mtu="$(default_mtu)" >>"$engine_log" 2>&1 </dev/null 9>&- &
  wait_for 60 $! || {
    tail -c "+$((begin + 1))" "$engine_log" | tail -n 30 >&2
    die "the Docker Engine did not start; its whole log is $engine_log"
  }
}

# The process of an engine that somebody else started in the usual place, and that lives.
foreign_engine() {
  [ "$engine_socket" = /var/run/docker.sock ] || return 0
  _process=$(cat /var/run/docker.pid 2>/dev/null) || return 0
  ! lives "$_process" || printf '%s\n' "$_process"
}

start() {
  mkdir -p "$engine_run"
  # Two set-ups at once start one engine. The lock is file descriptor 9, which the engine must not inherit.
  exec 9>"$engine_run/setup.lock"
  flock 9
  if engine_answers; then return; fi # the other one was faster
  if ours_runs; then other=$(cat "$engine_pidfile"); else other=$(foreign_engine); fi
  if by_systemd; then
    say "starting the Docker Engine by systemd"
    systemctl start docker.service || :
    wait_for 60 || { journalctl -n 30 --no-pager -u docker.service >&2 || :; die "docker.service does not answer"; }
  elif [ -n "$other" ]; then
    wait_for 30 || die "a Docker Engine runs (process $other), but does not answer at $engine_socket"
  else
    start_ours
  fi
}

case "${1-}" in
  plan) plan ;;
  start) start ;;
  '') set_up ;;
  *) die "usage: engine.sh [plan]" ;;
esac
