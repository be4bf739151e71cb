#!/usr/bin/env bash
# Contact records and token records, made by Apache Beam on Dataflow.
#
#   launch/dataflow.sh NAME --project=P --region=R --bucket=gs://B --image=I --folder=DIR \
#       --config=configs/population.py
#
# DIR is one folder under the same path on this machine and in the workers' containers: the extract
# lies in DIR/extract, the records come to DIR/data. launch/README.md says what that takes.
#
#   --project=P   of Google Cloud
#   --region=R    such as europe-west4
#   --bucket=gs://B  for what Dataflow stages
#   --image=I     made of launch/Dockerfile, target beam
#   --folder=DIR  that all workers see
#   --config=C    of jaxcoder tokens: which source, and how; its source_dir is DIR/extract
#   --config.a.b=V  a key of it
#   --workers=N   at most (100)
#   --dry-run     print the commands
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || usage 0
[[ $# -ge 1 ]] || usage 2 >&2
name=$1
shift
check_name "$name"
project='' region='' bucket='' image='' folder='' config='' workers=100 keys=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --project=*) project=${1#*=} ;;
    --region=*) region=${1#*=} ;;
    --bucket=*) bucket=${1#*=} bucket=${bucket%/} ;;
    --image=*) image=${1#*=} ;;
    --folder=*) folder=${1#*=} folder=${folder%/} ;;
    --config=*) config=${1#*=} ;;
    --config.*=*) keys+=("$1") ;;
    --workers=*) workers=${1#*=} ;;
    --dry-run) dry=1 ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
for needed in project region bucket image folder config; do
  [[ ${!needed} ]] || mistake "needs --$needed"
done
[[ $bucket == gs://?* ]] || mistake "--bucket=$bucket: expected gs://NAME"
check_count workers "$workers" 1
[[ $folder == /* ]] || mistake "--folder=$folder: expected an absolute path, the same on all workers"

beam=(--runner DataflowRunner)
for option in "project=$project" "region=$region" "temp_location=$bucket/dataflow" \
  "sdk_container_image=$image" "max_num_workers=$workers"; do
  beam+=(--beam_option "$option")
done
# Dataflow takes jobs of 10 MB, which the lexicon of silver evidence may exceed.
silver=--config.tokens.silver.enabled=False
run jaxcoder tokens --config "$config" --data_dir "$folder/data" \
  "--config.records.source_dir=$folder/extract" "$silver" ${keys[@]+"${keys[@]}"} \
  "${beam[@]}" --beam_option "job_name=$name"
say "to be trained on with the same $silver${keys[*]+ ${keys[*]}}"
