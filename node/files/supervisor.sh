# Runs the steps of a build inside its container, as PID 1 and root, in any image, also one without a
# shell. Started as node/files/workfolder.py says, where the files in out/ are told too.
#
# It uses the shell's own words and applets of the busybox beside it, nothing of the image. Whatever
# commands do to the container, to out/ and to processes: how they went is told in the end. They
# cannot kill PID 1.
#
# While a step's program runs, standard output and error of it and of this shell are a FIFO (a program
# that opens /dev/stderr then appends, as root or not), and a process of ours, the copier, appends to
# the log what comes out. A step ends with its own program; what that left behind is killed, the pipe
# closed, the copier waited for: then the log holds all of its output.

home=/toiso/.imagepool
in=$home/in out=$home/out
busybox=$in/busybox
iso_path=/toiso/iso_path.sh
newline='
'
tab='	'
carriage_return=$(printf '\r')
IFS=" $tab$newline"
workdir=$PWD
umask 022
trap : INT # the one signal that would end a shell that is PID 1; not passed on to programs

failed=1 cannot_write=74 never_ran=125 cannot_run=126 not_found=127 signalled=128 # exit codes

copier='' reader='' # processes of ours, not to be killed with what a command left behind
progress=''         # what out/progress holds of the steps that have ended
stopped=''          # why no further step is run
name=''             # of the result
number=0            # of steps that have ended
end=0               # offset in the log where the last of them ended
damaged=''          # the last step removed the log

main() { # ENVIRONMENT...
  log_to_file
  . "$in/plan.sh"
  index=0
  while [ $index -lt "$commands" ]; do
    step run_command $index "$@"
    index=$((index + 1))
  done
  [ "$find_iso" = 0 ] || step find_result "$@"
  [ "$find_files" = 0 ] || step find_files
  [ "$outbox" = 0 ] || $busybox chmod -R a+rwX /outbox 2>/dev/null # the node may be another user
  put progress "$progress"
  put exit "finished$newline${name:+$name$newline}"
}

# Steps

# Records when a step begins and how it ends. What it runs answers the exit code.
step() { # FUNCTION ARGUMENT...
  start=$end
  put progress "$progress$start$newline"
  if [ -n "$stopped" ]; then
    say "not run: $stopped"
    code=$never_ran
  else
    "$@"
    code=$?
  fi
  number=$((number + 1))
  if [ $code != 0 ] && [ "$keep_going" = 0 ] && [ -z "$stopped" ]; then
    stopped="command $number ended with $code"
  fi
  measure_log
  progress="$progress$start $end $code$newline"
}

run_command() { # INDEX ENVIRONMENT...
  . "$in/command.$1.sh" # appends to these arguments: the command's own variables, it, its arguments
  if [ -n "$failure" ]; then
    say "not run: $failure"
    return $never_ran
  fi
  save_command "$1" || return
  shift
  check_program /tmp/command 'the command' && supervise_as_planned "$@"
  code=$?
  $busybox rm -rf /tmp/command
  return $code
}

# The last command's standard output may be the result.
supervise_as_planned() { # VARIABLE=VALUE... PROGRAM ARGUMENT...
  if [ "$stream" = 0 ] || [ $((index + 1)) -lt "$commands" ]; then
    supervise become "$@"
    return
  fi
  $busybox rm -rf "$out/stream"
  $busybox touch "$out/stream" || return # from now on it is served
  [ "$pipe" = 1 ] || start_writer
  supervise stream "$@"
  code=$?
  [ "$pipe" = 1 ] || end_writer || code=$?
  return $code
}

stream() {
  become "$@" >"$in/stream"
}

save_command() { # INDEX
  [ -d /tmp ] || { $busybox mkdir -p /tmp && $busybox chmod 1777 /tmp; }
  remove_unless_file /tmp/command
  $busybox cp "$in/command.$1" /tmp/command && return
  say 'the command could not be saved to /tmp/command'
  return $cannot_run
}

# Asks the image for its result and copies that to out/result.
find_result() { # ENVIRONMENT...
  if [ ! -e $iso_path ]; then
    say "the image has no $iso_path, which would name the file that was built"
    return $not_found
  fi
  check_program $iso_path $iso_path || return
  ask_for_path "$@" || return
  copy_result
}

# Sets path to what iso_path.sh prints, less one newline at its end.
ask_for_path() { # ENVIRONMENT...
  remove_unless_file "$out/answer"
  $busybox head -c 4096 <"$in/answer" >"$out/answer" 2>/dev/null &
  reader=$!
  supervise answer "$@" $iso_path
  code=$?
  wait $reader
  reader=''
  path=$($busybox cat "$out/answer"; echo .)
  path=${path%.}
  path=${path%"$newline"}
  [ ${#path} -lt 4095 ] || say "$iso_path printed more than a path"
  [ $code = 0 ] || say "$iso_path ended with $code"
  return $code
}

answer() {
  become "$@" >"$in/answer"
}

copy_result() {
  case $path in
    /*) ;;
    '') complain "$iso_path printed nothing; it is to print the path of the file that was built" ;;
    *) complain "$iso_path printed \"$path\", which is no absolute path" ;;
  esac || return
  [ -e "$path" ] || complain "$iso_path names $path, but there is no such file" || return
  [ -f "$path" ] || complain "$iso_path names $path, which is no regular file" || return
  remove_unless_file "$out/result"
  if ! $busybox cat "$path" >"$out/result"; then
    $busybox rm -f "$out/result"
    complain "$path could not be copied; is the disk full?" || return
  fi
  name=${path##*/}
  say "the image is $path, $($busybox stat -c %s "$out/result") bytes"
}

# Copies what the patterns name to out/results. Each must name a regular file; links lead where they
# lead in here.
find_files() {
  . "$in/paths.sh" # sets these arguments
  $busybox rm -rf "$out/results"
  $busybox mkdir -m 777 "$out/results" || return # 777: the node, which takes them, may be another user
  names='' taken='//' unmatched='' found=0 position=0
  for pattern in "$@"; do
    matched=''
    take_matches "$pattern" || return
    if [ -z "$matched" ]; then
      say "no regular file matches $pattern"
      unmatched="$unmatched$position$newline"
    fi
    position=$((position + 1))
  done
  put unmatched "$unmatched"
  put names "$names"
  [ -z "$unmatched" ] || return $failed
  name=files
}

take_matches() { # PATTERN
  if [ ! -e "$1" ]; then
    IFS=''
    set -- $1
    IFS=" $tab$newline"
  fi
  for path in "$@"; do
    [ -f "$path" ] || continue
    matched=yes
    case $taken in
      *"//$path//"*) ;;
      *) take_file || return ;;
    esac
  done
}

take_file() {
  [ $found -lt "$file_limit" ] || complain "more than $file_limit files match" || return
  if ! $busybox cat "$path" >"$out/results/$found"; then
    complain "$path could not be copied; is the disk full?" || return
  fi
  base=${path##*/}
  names="$names${base//"$newline"/_}$newline"
  taken="$taken$path//"
  say "the file $path, $($busybox stat -c %s "$out/results/$found") bytes"
  found=$((found + 1))
}

complain() {
  say "$@"
  return $failed
}

# Programs

# Says why the kernel would not run a script: what it says itself explains nothing.
check_program() { # FILE NAME
  line=''
  { IFS= read -r -n 256 line <"$1"; } 2>/dev/null
  case $line in
    ?ELF*) ;;
    '#!'*"$carriage_return")
      say "the #! line of $2 ends in a carriage return, as Windows writes it: no interpreter is found"
      return $not_found
      ;;
    '#!'*)
      set -f
      check_interpreter "$2" ${line#??} || return
      ;;
    *)
      say "$2 has no #! line that names its interpreter"
      return $cannot_run
      ;;
  esac
  [ -x "$1" ] && return
  say "$2 is not executable"
  return $cannot_run
}

check_interpreter() { # NAME INTERPRETER...
  set +f
  if [ -z "${2-}" ]; then
    say "the #! line of $1 names no interpreter"
    return $cannot_run
  elif [ ! -e "$2" ]; then
    say "the #! line of $1 names $2, which is not in the image"
    return $not_found
  elif [ ! -f "$2" ] || [ ! -x "$2" ]; then
    say "the #! line of $1 names $2, which cannot be executed"
    return $cannot_run
  fi
}

# Becomes a program in the image's working folder, with these variables and no others, in a session of
# its own: a `kill 0` reaches nothing of ours.
become() { # VARIABLE=VALUE... PROGRAM ARGUMENT...
  { echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null # it ends when memory does, and not this shell
  cd "$workdir" 2>/dev/null || { $busybox mkdir -p "$workdir" && cd "$workdir"; } || exit $cannot_run
  exec $busybox setsid $busybox env -i -- "$@"
}

# Runs one in a process of its own, its output in the log, until it has ended and left nothing behind.
# In the foreground: in the background a shell would make it ignore SIGINT and SIGQUIT.
supervise() { # FUNCTION ARGUMENT...
  count_killed
  before=$killed
  start_copier
  exec >"$in/pipe" 2>&1
  ("$@") </dev/null
  code=$?
  left=''
  end_others || left=yes
  is_file "$out/log" || damaged=yes
  remove_unless_file "$out/log"
  log_to_file # the last writing end of the pipe is closed with this
  if [ -n "$left" ]; then
    # What cannot be ended may hold the pipe, and the copier would wait for ever: it gets a second to
    # copy what there is.
    kill -CONT -1
    $busybox sleep 1
    kill -KILL -1
  fi 2>/dev/null
  wait "$copier"
  case $? in
    0) ;;
    "$cannot_write") say 'output is missing: it could not be written; is the disk full?' ;;
    *) say 'output may be missing: what writes it to the log was killed' ;;
  esac
  copier=''
  [ -z "$left" ] || say 'processes that it left behind could not be ended'
  count_killed
  if [ "$killed" != "$before" ]; then
    say "the memory limit was reached; processes killed for it: $((killed - before))"
  fi
  return $code
}

# Processes

# Appends what comes out of the FIFO to the result: the program has a pipe, and cannot seek in what
# is served already.
start_writer() {
  (
    trap '' HUP INT QUIT USR1 USR2 ALRM TERM
    exec $busybox cat
  ) <"$in/stream" >>"$out/stream" &
  reader=$!
}

end_writer() {
  wait "$reader"
  code_of_writer=$?
  reader=''
  case $code_of_writer in
    0) return "$code" ;;
    [1-9] | [1-9][0-9]) say 'the stream could not be written; is the disk full?' ;;
    *) say 'the stream is cut short: what writes it was killed' ;;
  esac
  return $failed
}

# Its 3 is the log, as this shell has it open: what a command does to the path comes too late.
# The outer process holds the pipe's reading end, so that an inner one that was killed is replaced.
start_copier() {
  (
    trap '' HUP INT QUIT USR1 USR2 ALRM TERM XFSZ # XFSZ: at the limit, writing is an error, no more
    trap : CONT # see end_others
    code=$signalled
    while [ $code -ge $signalled ]; do
      (
        ulimit -f $((log_limit / 512))
        exec $busybox cat
      ) >&3
      code=$?
    done
    [ $code != 0 ] || exit 0
    if [ "$($busybox stat -c %s "$out/log")" -ge $((log_limit / 512 * 512)) ]; then
      echo "$newline[imagepool: the log has reached its limit of $log_limit bytes]" >&3
      exec $busybox cat >/dev/null
    fi
    $busybox cat >/dev/null
    exit $cannot_write # told when what may have filled the disk has ended
  ) 3>&1 <"$in/pipe" >/dev/null 2>&1 &
  copier=$!
}

# Kills what a command left behind. All is stopped before we look: a fork bomb would outrun us, and
# leave us no processor to look with.
#
# The copier may be forking meanwhile. For a process that ignores CONT, as all do that have no handler,
# the kernel takes the STOP back from itself, but not from the child that is being made: that would stay
# stopped for ever. Hence the copier's handler.
end_others() {
  rounds=0 # without one fewer
  fewest=''
  while
    kill -STOP -1
    find_others
  do
    set -- $others
    if [ $# -lt "${fewest:-$(($# + 1))}" ]; then
      fewest=$# rounds=0
    fi
    [ $rounds -lt 100 ] || return
    rounds=$((rounds + 1))
    kill -KILL "$@"
    $busybox sleep 0.02
  done 2>/dev/null
  kill -CONT -1 2>/dev/null # the copier, which a command may have stopped too
  return 0
}

# Sets others to all that lives here but ourselves. Zombies do not: our next wait buries them.
find_others() {
  others=''
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    case $pid in
      1 | "$copier" | "$reader") continue ;;
    esac
    status=''
    { read -r status <"$entry/stat"; } 2>/dev/null || continue
    case ${status##*) } in
      [ZX]*) ;;
      ?" $copier "*) ;; # its parent is the copier
      *) others="$others $pid" ;;
    esac
  done
  [ -n "$others" ]
}

# Sets killed: how many processes the memory limit has ended so far, as either kind of cgroup tells.
count_killed() {
  killed=0
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r $file ] || continue
    while read -r key value; do
      [ "$key" != oom_kill ] || killed=$value
    done <$file
  done
}

# Files in out/: a command may have removed them, or put a folder, a link, a FIFO in their place

# On a full disk the reserve is given up for what has to be told.
say() {
  echo "[imagepool: $*]" && return
  $busybox rm -rf "$out/reserve"
  echo "[imagepool: $*]"
}

log_to_file() {
  exec >>"$out/log" 2>&1
}

# Sets end to the log's size, which never is less than it was: the node has read that far.
measure_log() {
  end=$($busybox stat -c %s "$out/log")
  [ "$end" -lt "$start" ] || [ -n "$damaged" ] || return
  [ "$end" -ge "$start" ] || $busybox truncate -s "$start" "$out/log"
  say 'the log was removed or cut short; output may be missing'
  damaged=''
  end=$($busybox stat -c %s "$out/log")
}

# Writes a file whole or not at all.
put() { # NAME TEXT
  write "$1" "$2" && return
  $busybox rm -rf "$out/reserve"
  write "$1" "$2" && return
  say "$1 could not be written to the work folder; is the disk full?"
  exit $cannot_write
}

write() { # NAME TEXT
  remove_unless_file "$out/.$1"
  remove_unless_file "$out/$1"
  printf '%s' "$2" >"$out/.$1" && $busybox mv -f "$out/.$1" "$out/$1"
}

is_file() { # PATH
  [ -f "$1" ] && [ ! -L "$1" ]
}

remove_unless_file() { # PATH
  is_file "$1" && return
  [ ! -e "$1" ] && [ ! -L "$1" ] || $busybox rm -rf "$1"
}

# PID 1 still has the variables that image and container were given, as they were given.
set --
while IFS= read -r -d '' variable; do
  set -- "$@" "$variable"
done </proc/1/environ
main "$@"
