#!/bin/sh
# SPDX-License-Identifier: MIT
# merge_config.sh -m BASE FRAGMENT...: what the fragments say replaces what BASE says, in .config.
# The part of the Linux kernel's script of this name that recipes use.
set -e
if [ "$1" != -m ] || [ $# -lt 3 ]; then
	echo "Usage: merge_config.sh -m BASE FRAGMENT..." >&2
	exit 1
fi
base=$2
shift 2
merged=$(mktemp .config.XXXXXX)
trap 'rm -f "$merged" "$merged.next"' EXIT
cat "$base" > "$merged"
for fragment; do
	awk '
		function option(line) {
			if (match(line, /^(# )?CONFIG_[A-Za-z0-9_]+[ =]/) == 0) return ""
			sub(/^# /, "", line)
			sub(/[ =].*/, "", line)
			return line
		}
		FNR == NR { if ((name = option($0)) != "") said[name] = 1; next }
		!(option($0) in said)
	' "$fragment" "$merged" > "$merged.next"
	grep -E '^(# )?CONFIG_' "$fragment" >> "$merged.next" || true
	mv "$merged.next" "$merged"
done
cat "$merged" > .config
