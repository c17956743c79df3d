#!/bin/sh
# SPDX-License-Identifier: MIT
# The part of OE-Core's update-rc.d that builds use. Debian's program of this name
# knows no other root than its own.
usage() {
	cat >&2 <<'END'
Usage: update-rc.d [-f] [-s] -r ROOT NAME remove
       update-rc.d [-s] -r ROOT NAME defaults [NN | START STOP]
       update-rc.d [-s] -r ROOT NAME start|stop NN RUNLEVEL... . [start|stop ...]
END
	exit 1
}

root=
force=
while [ $# -gt 0 ]; do
	case $1 in
	-f) force=yes ;;
	-s) ;; # starting it at once is for a running device
	-r) root=$2 && shift ;;
	-*) usage ;;
	*) break ;;
	esac
	shift
done
[ $# -ge 2 ] || usage
if [ -z "$root" ]; then
	echo "update-rc.d: -r, the root of the image, is missing" >&2
	exit 1
fi
name=$1
shift

# link S|K NN RUNLEVEL
link() {
	mkdir -p "$root/etc/rc$3.d"
	ln -sf "../init.d/$name" "$root/etc/rc$3.d/$1$2$name"
}

linked() {
	ls -d "$root"/etc/rc?.d/[SK][0-9][0-9]"$name" >/dev/null 2>&1
}

case $1 in
remove)
	if [ -e "$root/etc/init.d/$name" ] && [ -z "$force" ]; then
		echo "update-rc.d: /etc/init.d/$name is still there (-f removes the links even so)" >&2
		exit 1
	fi
	rm -f "$root"/etc/rc?.d/[SK][0-9][0-9]"$name"
	exit
	;;
defaults | start | stop) ;;
*) usage ;;
esac

if [ ! -f "$root/etc/init.d/$name" ]; then
	echo "update-rc.d: there is no /etc/init.d/$name" >&2
	exit 1
fi
# As they were left, perhaps by a person.
if linked; then
	exit 0
fi

if [ "$1" = defaults ]; then
	start=${2:-20}
	stop=${3:-$start}
	for level in 2 3 4 5; do link S "$start" $level; done
	for level in 0 1 6; do link K "$stop" $level; done
	exit
fi
while [ $# -gt 0 ]; do
	case $1 in
	start) letter=S ;;
	stop) letter=K ;;
	*) usage ;;
	esac
	[ $# -ge 3 ] || usage
	number=$2
	shift 2
	while [ $# -gt 0 ] && [ "$1" != . ]; do
		link $letter "$number" "$1"
		shift
	done
	[ $# -eq 0 ] || shift
done
