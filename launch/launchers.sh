# shellcheck shell=bash
# Sourced by the scripts beside it: what they share.

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
unknown_option() { mistake "$1: unknown option; options are written --name=value, before -- COMMAND"; }
# $1: what came; then the actions there are
unknown_action() { mistake "'$1': unknown action; expected one of ${*:2}"; }
# $1: an option's name; $2: its value; $3: the least
check_count() {
  if [[ ! $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || (($2 < $3)); then
    mistake "--$1=$2: expected a whole number from $3"
  fi
}
# A name becomes part of commands and of resources: what Google Cloud, Kubernetes and SLURM all take.
check_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    mistake "NAME '$1': expected 1 to 40 of a-z, 0-9 and -, a letter first"
}
# As jaxcoder reads the value of --name=~/x, where no shell does.
at_home() { if [[ $1 == \~/* ]]; then echo "$HOME/${1#\~/}"; else echo "$1"; fi; }
# One spelling of a folder, to compare two.
place() {
  local path=$1 slash=/
  if [[ $path != *://* ]]; then
    [[ $path == /* ]] || path=$PWD/$path
    path=$path/
    while [[ $path == */./* || $path == *//* ]]; do
      path=${path//\/.\//$slash}
      path=${path//\/\//$slash}
    done
  fi
  echo "${path%/}"
}
# $1: --workdir of the launcher, or nothing; $2: 1 where the command is one process; then the command. A
# launcher that watches another folder than the run writes would start it again for ever, one that
# watches none would take a preempted run for a finished one, and processes that do not know of each
# other would each write the same run. Looks at words: a command inside `bash -c '...'` is not seen.
check_command() {
  local workdir=$1 processes=$2 word before='' option action='' its='' together='' dry_too=''
  local commands='^(records|tokens|pretrain|train|evaluate|predict|report|export|learning_curve|bench)$'
  shift 2
  for word in "$@"; do
    if [[ -z $action ]]; then # what follows it may be called jaxcoder, too: a folder, a bucket
      case $before:$word in
        -m:jaxcoder | -m:jaxcoder.cli) word=jaxcoder ;;
        -m:jaxcoder.* | *:-mjaxcoder.*) [[ ! ${word#*jaxcoder.} =~ $commands ]] || action=${word#*jaxcoder.} ;;
        *:jaxcoder | *:*/jaxcoder | *:-mjaxcoder) word=jaxcoder ;;
        jaxcoder:*) [[ ! $word =~ $commands ]] || action=$word ;;
      esac
      [[ $word != -mjaxcoder.cli ]] || word=jaxcoder
    fi
    option=${word#-} option=${option#-} # flags of jaxcoder have one dash or two
    case $before:$word in
      *:--workdir=*) its=$(at_home "${word#*=}") ;;
      *:-workdir=*) its=${word#*=} ;;
      -workdir:* | --workdir:*) its=$word ;;
      *:--dry-run) dry_too=1 ;;
      *:-h | *:--help) return 0 ;;
      *:-*)
        case $option in
          distributed | distributed=[Tt]* | distributed=1 | coordinator | coordinator=*) together=1 ;;
          distributed=* | nodistributed) together='' ;;
        esac
        ;;
    esac
    before=$word
  done
  [[ -z $workdir || -z $its || $(place "$its") == "$(place "$workdir")" ]] ||
    mistake "--workdir=$workdir, but the command has --workdir $its: expected the same"
  [[ $action ]] || return 0
  [[ -z $dry_too ]] || mistake '--dry-run: expected before COMMAND, of which it is no option'
  case $action in
    train | pretrain)
      [[ $its ]] || mistake "$action: the command needs --workdir ${workdir:-DIR}"
      [[ $workdir ]] || mistake "$action: needs --workdir=$its before the -- too"
      ;;
    *)
      [[ -z $workdir ]] || # of a run that is finished already, or has no such file
        mistake "$action: runs once; no --workdir before it, by which a run is started until it is finished"
      [[ $action == evaluate ]] || return 0
      [[ $its ]] || mistake 'evaluate: the command needs --workdir DIR'
      ;;
  esac
  [[ $processes == 1 || $together ]] ||
    mistake "$action: the command needs --distributed, by which all hosts are one run"
}
