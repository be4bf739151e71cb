# shellcheck shell=bash
# Sourced by the launchers: what they share.

# With --dry-run a command is printed, for people to read and for a shell to run, and not run. (%q of
# printf would put a script of several lines into one.)
dry=''
run() {
  if [[ $dry ]]; then
    local word line='' quote="'" quoted="'\\''"
    for word in "$@"; do
      [[ $word =~ ^[-A-Za-z0-9_./:=,@%+]+$ ]] || word=$quote${word//$quote/$quoted}$quote
      line+=" $word"
    done
    echo "${line# }"
  else
    "$@"
  fi
}
note() { if [[ $dry ]]; then echo "# $*"; fi; }
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
usage() { # prints the comment at the head of the script
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
  exit "$1"
}
mistake() {
  say "$*; see --help"
  exit 2
}
# A name becomes part of commands and of resources: what Google Cloud, Kubernetes and SLURM all take.
check_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    mistake "NAME '$1': expected 1 to 40 of a-z, 0-9 and -, a letter first"
}
# $1: --workdir of the launcher, or nothing; $2: processes, or "many"; then the command. A launcher that
# watches another folder than the run writes would start it again for ever; processes that do not know
# of each other would each write the same run.
check_command() {
  local workdir=${1%/} processes=$2 word before='' distributed=''
  shift 2
  for word in "$@"; do
    [[ $before != --workdir ]] || word=--workdir=$word
    case $word in
      --distributed | --distributed=* | --coordinator | --coordinator=*) distributed=1 ;;
      --workdir=*)
        word=${word#*=} word=${word%/}
        [[ -z $workdir || $word == "$workdir" ]] ||
          mistake "--workdir=$workdir, but the command has --workdir $word: expected the same"
        ;;
    esac
    before=$word
  done
  [[ $processes == 1 || $distributed || ${1##*/} != jaxcoder || ${2:-} != @(train|pretrain|evaluate) ]] ||
    mistake "jaxcoder $2 on several hosts: needs --distributed at the end of the command"
}
