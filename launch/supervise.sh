#!/usr/bin/env bash
# Runs a training command until its run is finished: starts it again when it was preempted or has died.
#
#   launch/supervise.sh [options] WORKDIR COMMAND...
#   launch/supervise.sh runs/x jaxcoder train --config configs/X.py --workdir runs/x
#
#   --tries=N    failures in a row without a new checkpoint before it gives up (5)
#   --wait=S     seconds before it starts again; doubled with each such failure, at most 60 (5)
#   --once       start it once: for a scheduler that starts it again itself
#   --dry-run    print the command
#
# A preempted run has saved and exits 0, as a finished one does. What tells them apart is the file
# WORKDIR/finished.json, which a run writes last.
#
# TERM, INT and HUP are passed on as TERM: the run saves, and nothing is started again.
#
# Exit status: 0 finished; 75 saved and not finished (EX_TEMPFAIL of sysexits.h: the same command
# goes on); 2 a mistake in the command, which another try would not mend; else that of the last try.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

tries=5 wait=5 once=''
while [[ ${1:-} == -* ]]; do
  case $1 in
    --tries=*) tries=${1#*=} ;;
    --wait=*) wait=${1#*=} ;;
    --once) once=1 ;;
    --dry-run) dry=1 ;;
    -h | --help) usage 0 ;;
    *) mistake "$1: unknown option" ;;
  esac
  shift
done
[[ $# -ge 2 ]] || usage 2 >&2
check_count tries "$tries" 1
check_count wait "$wait" 0
workdir=${1%/}
shift
check_command "$workdir" 1 "$@"

if [[ $dry ]]; then
  run "$@"
  note "until $workdir/finished.json is there"
  exit
fi

# The names in a folder. Of a bucket jaxcoder's own library reads them: images have no gcloud.
names() {
  case $1 in
    *://*)
      "${PYTHON:-python3}" - "$1" <<'PYTHON' || say "$1: cannot be listed"
import sys
from etils import epath
folder = epath.Path(sys.argv[1])
print(*(path.name for path in (folder.iterdir() if folder.exists() else ())), sep="\n")
PYTHON
      ;;
    *) [[ ! -d $1 ]] || ls -1 "$1" ;;
  esac
}
finished() { [[ $'\n'$(names "$workdir")$'\n' == *$'\nfinished.json\n'* ]]; }

# A checkpoint is a folder named by its step; one that is still being written has another name.
last_step() {
  local name last=''
  while read -r name; do
    if [[ $name =~ ^[0-9]+$ ]] && ((10#$name > ${last:--1})); then last=$((10#$name)); fi
  done <<<"$(names "$workdir/checkpoints")"
  echo "$last"
}

child='' stopping='' heard=''
stop() {
  stopping=1 heard=1
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap stop TERM INT HUP

# Sets `status`. A signal ends `wait` early; the second one then has the child's true status.
attend() {
  heard=1
  while [[ $heard ]]; do
    heard='' status=0
    wait "$child" || status=$?
  done
  child=''
}

# In a process group of its own: what is sent to ours, by Ctrl-C or a scheduler, comes to it once.
start() {
  set -m
  "$@" &
  child=$!
  set +m
  local group=$child
  [[ -z $stopping ]] || kill -TERM "$child" 2>/dev/null || true # came before there was a child
  attend
  kill -KILL -- "-$group" 2>/dev/null || true # what it left behind may hold the accelerator
}

failures=0
while ! finished; do
  [[ -z $stopping ]] || exit 75
  before=$(last_step)
  start "$@"
  after=$(last_step)
  ! finished || break
  if ((status == 126 || status == 127)); then status=2; fi # cannot be run, is not found
  if [[ $stopping ]]; then
    ((status)) || say "stopped, saved at step ${after:-0}"
    exit $((status ? status : 75))
  elif [[ $once ]]; then
    exit $((status ? status : 75))
  elif ((status == 2)); then
    say 'a mistake in the command: not started again'
    exit 2
  fi
  [[ $after == "$before" ]] && failures=$((failures + 1)) || failures=0
  if ((status)); then what="ended with status $status"; else what='was preempted'; fi
  if ((failures >= tries)); then
    say "$what; $failures times without a new checkpoint, the last at step ${after:-0}: giving up"
    exit $((status ? status : 75))
  fi
  pause=$wait
  for ((i = 1; i < failures && pause < 60; i++)); do pause=$((pause * 2 < 60 ? pause * 2 : 60)); done
  say "$what at step ${after:-0}; again in $pause s"
  start sleep "$pause" # as a child, so that a signal is heard at once
done
say "finished: $workdir/finished.json"
