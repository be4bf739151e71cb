#!/usr/bin/env bash
# A Cloud TPU slice: asked for, set up, run on all its workers, watched, deleted.
#
#   launch/tpu.sh create  NAME --zone=Z --type=v5litepod-16 [--spot] [--slices=N]
#   launch/tpu.sh status  NAME --zone=Z
#   launch/tpu.sh setup   NAME --zone=Z --bucket=gs://B
#   launch/tpu.sh run     NAME --zone=Z --workdir=gs://B/runs/x -- jaxcoder train ... --distributed
#   launch/tpu.sh follow  NAME --zone=Z
#   launch/tpu.sh stop    NAME --zone=Z
#   launch/tpu.sh delete  NAME --zone=Z
#   launch/tpu.sh babysit NAME (options of create, setup and run) -- jaxcoder train ... --distributed
#
# create asks for a queued resource; with --direct for a TPU VM at once. setup copies this checkout's
# HEAD and gs://B/data to ~/jaxcoder of every worker and installs jaxcoder there. run starts the
# command there as the systemd unit `jaxcoder`, with --workdir under launch/supervise.sh. stop lets it
# save.
# babysit does all that again whenever the slice is preempted, until the run is finished; it deletes
# a resource only when that is SUSPENDED or FAILED, which is when nothing of it is left. Who wants to
# stop or delete ends it first: it would start again what it misses.
#
# All options stand before the --; what follows is the command, word by word.
#
#   --zone=Z             such as us-west4-a
#   --project=P          gcloud's own unless given
#   --type=T             accelerator type, such as v5litepod-16, v5p-128, v6e-64
#   --version=V          software of the TPU VM; that of the type unless given
#   --spot               cheaper, and may be taken away at any time
#   --slices=N           slices in one queued resource (1)
#   --direct             a TPU VM without the queue; for all actions on it
#   --service-account=A  whose rights the workers have
#   --bucket=gs://B      holds data/, and takes the code on its way
#   --workdir=DIR        of the run, in a bucket; the same as in the command
#   --poll=S             seconds between two looks of babysit (60)
#   --tries=N            failures in a row to get a slice or to start there, before babysit gives up (10)
#   --dry-run            print the commands
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || usage 0
[[ $# -ge 2 ]] || usage 2 >&2
action=$1 name=$2
case $action in
  create | status | setup | run | follow | stop | delete | babysit) ;;
  *) unknown_action "$action" create, status, setup, run, follow, stop, delete, babysit ;;
esac
shift 2
check_name "$name"
zone='' project='' type='' version='' spot='' slices=1 direct='' account='' bucket='' workdir=''
poll=60 tries=10
while [[ $# -gt 0 ]]; do
  case $1 in
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --spot) spot=1 ;;
    --slices=*) slices=${1#*=} ;;
    --direct) direct=1 ;;
    --service-account=*) account=${1#*=} ;;
    --bucket=*) bucket=${1#*=} bucket=${bucket%/} ;;
    --workdir=*) workdir=${1#*=} workdir=${workdir%/} ;;
    --poll=*) poll=${1#*=} ;;
    --tries=*) tries=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
need() { [[ ${!1} ]] || mistake "$action: needs --${1//_/-}"; }
need zone
[[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z0-9]+$ ]] || mistake "--zone=$zone: expected such as us-west4-a"
check_count slices "$slices" 1
check_count poll "$poll" 0
check_count tries "$tries" 1
[[ -z $direct || $slices == 1 ]] || mistake '--direct: one slice; several need the queue'
[[ -z $bucket || $bucket == gs://?* ]] || mistake "--bucket=$bucket: expected gs://NAME"
[[ -z $workdir || $workdir == gs://* ]] ||
  mistake "--workdir=$workdir: expected gs://..., which outlives the slice and all workers see"
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")

# https://docs.cloud.google.com/tpu/docs/runtimes
runtime() {
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) mistake "--type=$type: expected such as v5litepod-16 (a v5e), v5p-128, v6e-64; what is newer needs --version too" ;;
  esac
}

create() {
  need type
  version=${version:-$(runtime)}
  local what=("--accelerator-type=$type")
  [[ -z $spot ]] || what+=(--spot)
  [[ -z $account ]] || what+=("--service-account=$account")
  if [[ $direct ]]; then
    run gcloud compute tpus tpu-vm create "$name" "${where[@]}" "${what[@]}" "--version=$version"
    return
  fi
  if ((slices == 1)); then
    what+=("--node-id=$name")
  else
    what+=("--node-count=$slices" "--node-prefix=$name")
  fi
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" "${what[@]}" \
    "--runtime-version=$version"
}

# Runs a command in the shell of workers: `all`, or a number.
on_workers() {
  local target=(tpu-vm ssh "$name")
  [[ $direct ]] || target=(queued-resources ssh "$name" "--node=$([[ $1 == all ]] && echo all || echo 0)")
  run gcloud compute tpus "${target[@]}" "${where[@]}" "--worker=$1" "--command=$2"
}

# uv brings a Python that jaxcoder can use: the TPU images of Ubuntu 22.04 have 3.10.
setup() {
  need bucket
  local archive=$bucket/launch/$name.tar.gz folder=${TMPDIR:-/tmp} status=0
  note "in place of $folder a run has a new folder:"
  [[ $dry ]] || folder=$(mktemp -d)
  if [[ $(git -C "$here/.." status --porcelain 2>/dev/null) ]]; then
    say 'uncommitted changes stay here: the workers get HEAD'
  fi
  run git -C "$here/.." archive --format=tar.gz "--output=$folder/code.tar.gz" HEAD &&
    run gcloud storage cp "$folder/code.tar.gz" "$archive" &&
    on_workers all "set -e
mkdir -p jaxcoder/data
gcloud storage cp $archive code.tar.gz
tar -xzf code.tar.gz -C jaxcoder
cd jaxcoder
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -c constraints.txt -e '.[tpu,gcs]'
gcloud storage rsync --recursive $bucket/data data" || status=$?
  [[ $dry ]] || rm -r "$folder"
  return "$status"
}

# A systemd unit outlives the ssh session, and is sent TERM when the machine is taken away.
# KillMode=mixed: TERM to the supervisor alone, which passes it on. env: systemd-run would look the
# program up in the folder and PATH of whoever calls it, not of the unit.
start() {
  [[ $# -gt 0 ]] || mistake "$action: needs -- COMMAND"
  check_command "$workdir" many "$@"
  [[ -z $workdir ]] || set -- launch/supervise.sh "$workdir" "$@"
  local command
  command=$(printf '%q ' "$@")
  # shellcheck disable=SC2016  # $HOME and $PATH are the worker's
  on_workers all 'if systemctl is-active --quiet jaxcoder; then echo "runs already: not started again"; else
sudo systemctl reset-failed jaxcoder 2>/dev/null || true
sudo systemd-run --unit=jaxcoder --uid="$(id -u)" --working-directory="$HOME/jaxcoder" \
--setenv=PATH="$HOME/jaxcoder/.venv/bin:$PATH" --property=KillMode=mixed \
--property=TimeoutStopSec=300 --property=SuccessExitStatus=75 /usr/bin/env '"$command"'
fi'
}

follow() { on_workers 0 'sudo journalctl --unit=jaxcoder --lines=100 --follow --output=cat'; }
stop() { on_workers all 'sudo systemctl stop jaxcoder'; }

describe() {
  if [[ $direct ]]; then
    run gcloud compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)'
  else
    run gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
      '--format=value(state.state)'
  fi
}

# $1: further options
delete() {
  if [[ $direct ]]; then
    run gcloud compute tpus tpu-vm delete "$name" "${where[@]}" "$@"
  else
    run gcloud compute tpus queued-resources delete "$name" "${where[@]}" "$@"
  fi
}

finished() { gcloud storage ls "$workdir/finished.json" >/dev/null 2>&1; }

# ABSENT, UNKNOWN, or as gcloud has it, with the words of a queued resource.
state() {
  local answer
  if answer=$(describe 2>&1); then
    answer=${answer##*$'\n'} # after warnings
    case $answer in
      READY) echo ACTIVE ;;
      PREEMPTED | TERMINATED) echo SUSPENDED ;;
      *) echo "$answer" ;;
    esac
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    say "$answer"
    echo UNKNOWN
  fi
}

# A slice is there: starts the run where it does not run. Status 0 when it already ran.
tend() {
  local units
  if ! units=$(on_workers all 'systemctl is-active jaxcoder || true'); then
    say 'the workers do not answer' # taken away this very moment, or not yet up
    return 1
  elif grep -qx failed <<<"$units"; then
    say "the run has failed for good, and $name still costs: launch/tpu.sh follow $again; launch/tpu.sh delete $again"
    exit 1
  elif grep -qx inactive <<<"$units"; then
    say 'starting the run'
    { setup && start "$@"; } || say 'could not start it'
    return 1
  fi
}

babysit() {
  need bucket
  need workdir
  need type
  [[ $# -gt 0 ]] || mistake "$action: needs -- COMMAND"
  check_command "$workdir" many "$@" # before there is a slice
  version=${version:-$(runtime)}
  if [[ $dry ]]; then
    note "until this is there:" && run gcloud storage ls "$workdir/finished.json"
    note "every $poll s:" && describe
    note 'where there is none:' && create
    note 'ACTIVE, and the unit does not run:' && setup && start "$@"
    note 'SUSPENDED (preempted) or FAILED, then created again:' && delete --quiet
    return
  fi
  local now before='' failures=0 again="$name ${where[*]}${direct:+ --direct}"
  while ! finished; do
    now=$(state)
    [[ $now == "$before" ]] || say "$name is $now"
    before=$now
    case $now in
      ABSENT) create || failures=$((failures + 1)) ;;
      ACTIVE) if tend "$@"; then failures=0; else failures=$((failures + 1)); fi ;;
      FAILED)
        failures=$((failures + 1))
        delete --quiet || true
        ;;
      SUSPENDED) delete --quiet || true ;;
      *) ;; # waits in the queue, is being made or deleted, or gcloud could not say
    esac
    if ((failures >= tries)); then
      say "no slice on which the run stays up after $failures tries: giving up; $name may still cost"
      exit 1
    fi
    sleep "$poll"
  done
  say "finished: $workdir/finished.json; $name still costs: launch/tpu.sh delete $again"
}

case $action in
  create) create ;;
  status)
    describe
    on_workers all 'systemctl is-active jaxcoder || true' || say 'no workers yet'
    ;;
  setup) setup ;;
  run) start "$@" ;;
  follow) follow ;;
  stop) stop ;;
  # --force takes the TPU VMs with it; gcloud asks before.
  delete) if [[ $direct ]]; then delete; else delete --force; fi ;;
  babysit) babysit "$@" ;;
esac
