# shellcheck shell=bash
# Sourced by the scripts: makes sure that this machine has the Debian packages they need.
#
#   source "$root/scripts/lib/host_packages.sh"
#   ensure_packages "boot a machine" qemu-system-arm e2fsprogs
#
# As root what is missing is installed; otherwise the one command to type is printed and the script ends with 1.

# missing_packages NAME...: prints those that are not installed.
missing_packages() {
  local name state
  for name in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) || state=
    [[ $state == installed ]] || echo "$name"
  done
}

# Elapsed seconds on one line while a quiet command runs; on a terminal only, a log gets one line.
_package_ticker() {
  local what=$1 parent=$2 began=$SECONDS
  # Ends by itself with its parent, however that one ends.
  while kill -0 "$parent" 2>/dev/null; do
    printf '\r==> %s … %d s ' "$what" $((SECONDS - began)) >&2
    sleep 1
  done
}

# _package_step WHAT LOG COMMAND...: runs the command quietly, says what it is and how long it took.
_package_step() {
  local what=$1 log=$2 began=$SECONDS ticker='' status=0
  shift 2
  if [[ -t 2 ]]; then
    _package_ticker "$what" $$ &
    ticker=$!
  else
    echo "==> $what" >&2
  fi
  # In the foreground: ctrl-C must reach apt, which then leaves dpkg in order.
  DEBIAN_FRONTEND=noninteractive "$@" </dev/null >>"$log" 2>&1 || status=$?
  if [[ -n $ticker ]]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r' >&2
  fi
  echo "==> $what: $((SECONDS - began)) s" >&2
  return "$status"
}

# Another apt may be at work; its list lock knows no time-out of its own.
_package_update() {
  local try
  for try in 1 2 3 4 5 6; do
    _package_step "reading Debian's package lists" "$1" apt-get update -q && return 0
    grep -q 'Could not get lock' "$1" || return 1
    ((try == 6)) || sleep 5
  done
  return 1
}

_package_install() {
  local log=$1
  shift
  _package_step "installing $*" "$log" \
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# ensure_packages PURPOSE NAME...: returns when all are installed, ends the script with 1 otherwise.
ensure_packages() {
  local purpose=$1 script=${0##*/} log name reason
  local -a missing
  shift
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "$script: this is not a Debian system, so the packages needed to $purpose cannot be checked; run it on Debian 12, which has them as: $*" >&2
    exit 1
  fi
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0

  if [[ $(id -u) -ne 0 ]]; then
    echo "$script: to $purpose, Debian packages are missing; type: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi

  log=$(mktemp "${TMPDIR:-/tmp}/edgeweb-packages.XXXXXX")
  for name in "${missing[@]}"; do
    if ! apt-cache show "$name" >/dev/null 2>&1; then
      # A failed update is no verdict: what the install says is.
      _package_update "$log" || true
      break
    fi
  done
  # Lists that were read long ago name files that are gone: read them again, once, and try again.
  if ! _package_install "$log" "${missing[@]}"; then
    if ! { _package_update "$log" && _package_install "$log" "${missing[@]}"; }; then
      tail -n 20 "$log" >&2
      reason=$(grep '^E: ' "$log" | tail -n 1) || true
      echo "$script: cannot install ${missing[*]} (${reason:-apt-get failed}); the whole log is $log" >&2
      exit 1
    fi
  fi
  rm -f "$log"
}
