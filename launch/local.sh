#!/usr/bin/env bash
# Starts N processes of one command on this machine: a pod in small, on CPU, over gloo.
#
#   launch/local.sh [options] N COMMAND...
#   launch/local.sh 2 jaxcoder train --config configs/demo.py --workdir runs/demo
#
#   --devices=D  devices a process; as JAX has it unless given
#   --port=P     of the coordinator; a free one unless given
#   --grace=S    seconds between TERM and KILL (30)
#   --dry-run    print the commands
#
# Each process gets --coordinator, --processes and --process, and its lines begin with [its number].
# When one fails, the others are ended. TERM, INT and HUP are passed on as TERM; what is still there
# after the grace period, or at a second one of them, is killed.
#
# Exit status: 0 when all exit 0, else that of the first that failed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

devices='' port='' grace=30
while [[ ${1:-} == -* ]]; do
  case $1 in
    --devices=*) devices=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry=1 ;;
    -h | --help) usage 0 ;;
    *) mistake "$1: unknown option" ;;
  esac
  shift
done
[[ $# -ge 2 ]] || usage 2 >&2
processes=$1
shift
[[ $processes =~ ^[1-9][0-9]*$ ]] || mistake "$processes: expected a number of processes"
[[ -z $devices ]] || check_count devices "$devices" 1
[[ -z $port ]] || check_count port "$port" 1
check_count grace "$grace" 0

free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 10000)) # below the ports that systems hand out by themselves
    (: <"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
  done
  echo "$candidate"
}
port=${port:-$(free_port)}

settings=(JAX_PLATFORMS=cpu JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo PYTHONUNBUFFERED=1)
[[ -z $devices ]] || settings+=("JAX_NUM_CPU_DEVICES=$devices")
flags() { echo "--coordinator=127.0.0.1:$port --processes=$processes --process=$1"; }

if [[ $dry ]]; then
  for ((i = 0; i < processes; i++)); do
    # shellcheck disable=SC2046  # the flags are three words
    run env "${settings[@]}" "$@" $(flags "$i")
  done
  exit
fi

pipes=$(mktemp -d)
# Ours alone: a child that is ended while it is being forked still has the traps of this shell.
trap '[[ ${BASHPID:-$$} != "$$" ]] || rm -rf "$pipes"' EXIT

# Prints lines behind a number, until the end is written. The pipe is opened for both directions,
# which does not wait for a process that may never come to write.
end=$'\x04'
label() {
  trap '' TERM INT HUP
  local line
  while IFS= read -r line; do
    [[ $line == *"$end" ]] || { printf '[%s] %s\n' "$1" "$line"; continue; }
    [[ $line == "$end" ]] || printf '[%s] %s\n' "$1" "${line%"$end"}" # a last line without newline
    break
  done <>"$2"
}

pids=() readers=()
first='' # status of the first that failed
kill_at=''
end_all() {
  local pid
  for pid in "${pids[@]}"; do [[ -z $pid ]] || kill -TERM "$pid" 2>/dev/null || true; done
}
stopping=''
# shellcheck disable=SC2329  # a trap calls it
stop() {
  if [[ $stopping ]]; then
    kill_at=$SECONDS
  else
    stopping=1 kill_at=${kill_at:-$((SECONDS + grace))}
    say "stopping; killed after $grace s, or when asked again"
  fi
  end_all
}
trap stop TERM INT HUP

for ((i = 0; i < processes; i++)); do
  mkfifo "$pipes/$i"
  label "$i" "$pipes/$i" &
  readers+=($!)
  set -m # each in a process group of its own, which can be ended as a whole
  # shellcheck disable=SC2046  # the flags are three words
  env "${settings[@]}" "$@" $(flags "$i") >"$pipes/$i" 2>&1 &
  pids+=($!)
  set +m
done
groups=("${pids[@]}")

left=$processes
while ((left)); do
  for ((i = 0; i < processes; i++)); do
    if [[ -z ${pids[i]} ]] || kill -0 "${pids[i]}" 2>/dev/null; then continue; fi
    status=0
    wait "${pids[i]}" || status=$?
    pids[i]=''
    left=$((left - 1))
    if ((status)) && [[ -z $first ]]; then
      first=$status kill_at=${kill_at:-$((SECONDS + grace))}
      ((left == 0)) || say "process $i ended with status $status: ending the others"
      end_all
    fi
  done
  if [[ $kill_at ]] && ((left && SECONDS >= kill_at)); then
    kill_at=''
    say "$left still there: killed"
    for pid in "${pids[@]}"; do [[ -z $pid ]] || kill -KILL -- "-$pid" 2>/dev/null || true; done
  fi
  sleep 0.2 & # in the background, so that a signal is heard at once
  wait $! || true
done
for group in "${groups[@]}"; do kill -KILL -- "-$group" 2>/dev/null || true; done # what they left
for ((i = 0; i < processes; i++)); do
  echo "$end" >"$pipes/$i"
  wait "${readers[i]}" || true
done
exit "${first:-0}"
