# shellcheck shell=bash
# Sourced by the scripts whose work is done in Python: finds one that is new enough, or installs it.

# shellcheck source=scripts/lib/host_packages.sh
source "${root:?}/scripts/lib/host_packages.sh"

_new_enough() {
  command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# run_python PURPOSE MODULE [ARGUMENT...]: becomes Python that runs a module of this tree.
run_python() {
  local purpose=$1 module=$2 python=python3
  shift 2
  if ! _new_enough "$python"; then
    # The person's own python3 may be an older one that stands before Debian's.
    ensure_packages "$purpose" python3
    python=/usr/bin/python3
    if ! _new_enough "$python"; then
      echo "${0##*/}: Python 3.11 or newer is needed, $python is $("$python" -V 2>&1)" >&2
      exit 1
    fi
  fi
  # -P: a folder named scripts where the person happens to be is not ours.
  PYTHONPATH=$root exec "$python" -P -m "$module" "$@"
}
