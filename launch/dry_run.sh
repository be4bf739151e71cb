# shellcheck shell=bash
# Sourced by the launchers: with --dry-run a command is printed, as a shell would read it, and not run.
dry=''
run() {
  if [[ $dry ]]; then
    printf '%q ' "$@"
    echo
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
