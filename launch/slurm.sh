#!/usr/bin/env bash
# A run on GPU nodes of a SLURM cluster, of which launch/slurm.sbatch is the job.
#
#   launch/slurm.sh start  NAME --nodes=N --gpus=G --workdir=DIR [options of sbatch] -- COMMAND...
#   launch/slurm.sh status NAME
#   launch/slurm.sh follow NAME
#   launch/slurm.sh stop   NAME
#
#   launch/slurm.sh start icd --nodes=4 --gpus=8 --workdir=/scratch/runs/icd --partition=gpu --time=24:00:00 \
#       -- jaxcoder train --config configs/X.py --workdir /scratch/runs/icd --distributed
#
# One process a GPU, as JAX expects it of SLURM. Before the time is up the run saves, and the job
# puts itself into the queue again, until the run is finished. stop cancels all jobs of that name.
#
#   --nodes=N      nodes (1)
#   --gpus=G       GPUs, and processes, a node (1); with their type a100:4
#   --workdir=DIR  of a run of train or pretrain, on a disk that all nodes see; the same as in the
#                  command
#   --log=FILE     (NAME.log); for follow too
#   --dry-run      print the commands
#   others         go to sbatch: --partition=, --account=, --time=, --cpus-per-task=, --mem=; not
#                  --signal=, which the job has
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/launchers.sh
source "$here/launchers.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || usage 0
[[ $# -ge 2 ]] || usage 2 >&2
action=$1 name=$2
case $action in
  start | status | follow | stop) ;;
  *) unknown_action "$action" start, status, follow, stop ;;
esac
shift 2
check_name "$name"
nodes=1 gpus=1 workdir='' log=$name.log others=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --workdir=*) workdir=$(at_home "${1#*=}") ;;
    --log=*) log=${1#*=} ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    --gpus-per-*=* | --ntasks*=* | --gres=gpu | --gres=gpu[:=,]* | --gres=*,gpu | --gres=*,gpu[:=,]* | \
      --job-name=* | --output=*)
      mistake "$1: --nodes, --gpus, --log and NAME decide it"
      ;;
    --signal=*) mistake "$1: launch/slurm.sbatch decides it" ;;
    --*=*) others+=("$1") ;;
    *) unknown_option "$1" ;;
  esac
  shift
done

case $action in
  start)
    [[ $# -gt 0 ]] || mistake 'start: needs -- COMMAND'
    check_count nodes "$nodes" 1
    [[ $gpus =~ ^([A-Za-z0-9_.-]+:)?[1-9][0-9]{0,3}$ ]] || mistake "--gpus=$gpus: expected such as 8 or a100:8"
    tasks=${gpus##*:}
    check_command "$workdir" "$((nodes * tasks))" "$@"
    # --gpus-per-node, not a task: JAX takes the GPU of the task's number among all of its node's.
    run sbatch "--job-name=$name" "--output=$log" "--nodes=$nodes" "--ntasks-per-node=$tasks" \
      "--gpus-per-node=$gpus" ${others[@]+"${others[@]}"} "$here/slurm.sbatch" "$here" "$workdir" "$@"
    ;;
  status) run squeue "--user=$(id -un)" "--name=$name" ;;
  follow) run tail -n 100 -F "$log" ;;
  stop) run scancel "--user=$(id -un)" "--name=$name" ;;
esac
