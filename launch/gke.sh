#!/usr/bin/env bash
# A run on TPU slices of GKE, as a JobSet: launch/jobset.yaml, filled in.
#
#   launch/gke.sh start  NAME (options) -- jaxcoder train ... --distributed
#   launch/gke.sh show   NAME (options) -- jaxcoder train ... --distributed
#   launch/gke.sh status NAME
#   launch/gke.sh follow NAME
#   launch/gke.sh stop   NAME
#
# show prints the manifest. stop deletes the JobSet: its pods save and end; the workdir stays, and
# start goes on from it.
#
#   --image=I            made of launch/Dockerfile
#   --workdir=gs://...   of a run of train or pretrain; the same as in the command
#   --bucket=B           its objects are files below /bucket, to be read: --config.data_dir=/bucket/data
#   --accelerator=A      such as tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice
#   --topology=T         such as 4x4
#   --chips=N            of one host (4)
#   --slices=N           node pools (1)
#   --spot               on Spot VMs
#   --restarts=N         starts anew after failures, preemptions not counted (10)
#   --service-account=A  of Kubernetes, with rights to the bucket (default)
#   --namespace=N        kubectl's own unless given
#   --dry-run            print the commands, and the manifest
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || usage 0
[[ $# -ge 2 ]] || usage 2 >&2
action=$1 name=$2
case $action in
  start | show | status | follow | stop) ;;
  *) unknown_action "$action" start, show, status, follow, stop ;;
esac
shift 2
check_name "$name"
image='' workdir='' bucket='' accelerator='' topology='' chips=4 slices=1 spot='' restarts=10
account=default namespace=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --image=*) image=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --bucket=*) bucket=${1#*=} bucket=${bucket#gs://} bucket=${bucket%/} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --spot) spot=1 ;;
    --restarts=*) restarts=${1#*=} ;;
    --service-account=*) account=${1#*=} ;;
    --namespace=*) namespace=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
kubectl=(kubectl)
[[ -z $namespace ]] || kubectl+=("--namespace=$namespace")

json_list() {
  local word list=''
  for word in "$@"; do
    [[ $word != *[[:cntrl:]]* ]] || mistake 'COMMAND: no tabs and no line breaks'
    # shellcheck disable=SC1003  # a backslash becomes two
    word=${word//'\'/'\\'}
    list+=", \"${word//'"'/'\"'}\""
  done
  echo "[${list:2}]"
}

manifest() {
  local needed key value text=''
  for needed in image bucket accelerator topology; do
    [[ ${!needed} ]] || mistake "$action: needs --$needed"
  done
  [[ $# -gt 0 ]] || mistake "$action: needs -- COMMAND"
  [[ -z $workdir || $workdir == gs://* ]] ||
    mistake "--workdir=$workdir: expected gs://..., which outlives the pods"
  check_count chips "$chips" 1
  check_count slices "$slices" 1
  check_count restarts "$restarts" 0
  [[ $accelerator == tpu-* || $accelerator == tpu7x* ]] ||
    mistake "--accelerator=$accelerator: expected such as tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice"
  local sides='[1-9][0-9]*x[1-9][0-9]*' like=4x4
  case $accelerator in
    tpu-v4-* | tpu-v5p-* | tpu7x*) sides+='x[1-9][0-9]*' like=2x2x2 ;;
  esac
  [[ $topology =~ ^$sides$ ]] || mistake "--topology=$topology: expected such as $like of $accelerator"
  local all=$((${topology//x/*}))
  ((all % chips == 0)) ||
    mistake "--chips=$chips: hosts of as many do not make up the $all chips of $topology"
  [[ $bucket != */* ]] || mistake "--bucket=$bucket: expected the name of a bucket, without a folder"
  for key in image="$image" bucket="$bucket" accelerator="$accelerator" service-account="$account"; do
    [[ ${key#*=} =~ ^[A-Za-z0-9][-A-Za-z0-9._/:@]*$ ]] || # it stands unquoted in the manifest
      mistake "--$key: expected a name of letters, digits and -._/:@"
  done
  check_command "$workdir" "$((slices * all / chips))" "$@"
  # Of a run that was preempted the JobSet must hear that it is not finished.
  [[ -z $workdir ]] || set -- launch/supervise.sh --once "$workdir" "$@"
  local line
  while IFS= read -r line; do
    [[ $line != *'# if spot' || $spot ]] || continue
    text+=$line$'\n'
  done <"$here/jobset.yaml"
  for key in NAME="$name" RESTARTS="$restarts" SLICES="$slices" HOSTS=$((all / chips)) \
    SERVICE_ACCOUNT="$account" ACCELERATOR="$accelerator" TOPOLOGY="$topology" IMAGE="$image" \
    CHIPS="$chips" BUCKET="$bucket" \
    COMMAND="$(json_list "$@")"; do
    value=${key#*=} key=${key%%=*}
    text=${text//"{{$key}}"/"$value"}
  done
  printf '%s' "$text"
}

filled=''
[[ $action != start && $action != show ]] || filled=$(manifest "$@")
case $action in
  show) echo "$filled" ;;
  start)
    note 'with the manifest below:'
    run "${kubectl[@]}" create --filename=- <<<"$filled"
    if [[ $dry ]]; then echo "$filled"; fi
    ;;
  status)
    run "${kubectl[@]}" get jobset "$name"
    run "${kubectl[@]}" get pods "--selector=jobset.sigs.k8s.io/jobset-name=$name"
    ;;
  follow) # the first worker of the first slice, which is process 0
    run "${kubectl[@]}" logs --follow --container=jaxcoder --tail=100 "--selector=jobset.sigs.k8s.io/\
jobset-name=$name,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
    ;;
  stop) run "${kubectl[@]}" delete jobset "$name" ;;
esac
