#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# What the kernel's command line says of a root becomes the right line of an nbdtab, in each shell that an initramfs may have.
set -u
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "${BASH_SOURCE[0]%/*}/tap.sh"
functions=$top/scripts/initramfs/functions

# What root= or nbdroot= is, and what comes of it: name|where|fstype|flags|options, or "error".
table=$(
	cat <<-'END'
		nbd:nbd://host/disk	|uri=nbd://host/disk|||
		nbd://host/disk	|uri=nbd://host/disk|||
		nbds://user@host:1/a%2Cnbd?tls-hostname=b	|uri=nbds://user@host:1/a%2Cnbd?tls-hostname=b|||
		nbd://one/a,nbds://two/a	|uri=nbd://one/a uri=nbds://two/a|||
		nbd:nbd://one/a,b,nbd://two/a	|uri=nbd://one/a,b uri=nbd://two/a|||
		nbd+unix:///?socket=/run/s	|uri=nbd+unix:///?socket=/run/s|||
		nbd+vsock://2/a	|uri=nbd+vsock://2/a|||
		nbd://one/a,nbd	error
		nbd:host:disk	|host disk|||
		nbd:host:disk:ext4	|host disk|ext4||
		nbd:host:disk:ext4:rw,noatime	|host disk|ext4|rw,noatime|
		nbd:host:disk:ext4:rw:timeout=5,bs=4096	|host disk|ext4|rw|timeout=5,bs=4096
		nbd:host:disk:::timeout=5	|host disk|||timeout=5
		nbd:host:10810/disk:xfs	|host:10810 disk|xfs||
		nbd:host:10810	|uri=nbd://host:10810/|||
		nbd:host:10810/	|uri=nbd://host:10810/|||
		nbd:host:/disk	|host /disk|||
		nbd:host:10a	|host 10a|||
		nbd:[2001:db8::1]:disk:ext4	|[2001:db8::1] disk|ext4||
		nbd:[2001:db8::1]:10810/disk	|[2001:db8::1]:10810 disk|||
		nbd:host	error
		nbd::disk	error
		nbd:[2001:db8::1]disk	error
		nbd:host:disk:ext4$(x)	error
		host,disk,nbd3	nbd3|host disk|||
		host,disk,/dev/nbd3	nbd3|host disk|||
		host:1,disk,nbd3	nbd3|host:1 disk|||
		host,disk	|host disk|||
		2001:db8::1,disk,nbd0	nbd0|[2001:db8::1] disk|||
		host:10810/disk	|host:10810 disk|||
		host:10810/a/b	|host:10810 a/b|||
		host:10810/	|uri=nbd://host:10810/|||
		host:10810	|uri=nbd://host:10810/|||
		host/disk	|host disk|||
		host:/srv/disk	|host /srv/disk|||
		host:x/disk	error
		host	|uri=nbd://host/|||
		[2001:db8::1]:10810/disk	|[2001:db8::1]:10810 disk|||
		[2001:db8::1]:/srv/disk	|[2001:db8::1] /srv/disk|||
		host/#disk	|uri=nbd://host/%23disk|||
		host/uri=a	|uri=nbd://host/uri=a|||
		/srv/disk	error
		a b/disk	error
	END
)
# Where DHCP has named 192.0.2.1.
dhcp=$(
	cat <<-'END'
		/srv/disk	|192.0.2.1 /srv/disk|||
		:/srv/disk	|192.0.2.1 /srv/disk|||
		dhcp:10810/disk	|192.0.2.1:10810 disk|||
		dhcp,disk,nbd1	nbd1|192.0.2.1 disk|||
		host/disk	|host disk|||
	END
)
# WHERE <tab> OPTIONS <tab> what there is in the directory of keys <tab> the options then
keys=$(
	cat <<-'END'
		uri=nbds://host/		keys.psk	tls-psk-file=@/keys.psk
		uri=nbds://host/	timeout=5	keys.psk	timeout=5,tls-psk-file=@/keys.psk
		uri=nbds://host/		ca-cert.pem	tls-certificates=@
		uri=nbds://host/?tls-psk-file=/x		keys.psk	
		host disk		keys.psk	
		host disk	tls	keys.psk	tls,tls-psk-file=@/keys.psk
		host disk	tls-hostname=a	ca-cert.pem	tls-hostname=a,tls-certificates=@
		host disk	tls-ca=/x	ca-cert.pem	tls-ca=/x
		uri=nbds://host/		nothing	
	END
)

# shellcheck disable=SC2016 # for the other shell
parse='set -u; . "$1"; nbd_server=$2
while IFS="	" read -r text want; do
	if nbd_parse "$text"; then
		have="$nbd_name|$nbd_where|$nbd_fstype|$nbd_flags|$nbd_options"
	else
		have=error
		[ -n "$nbd_error" ] || echo "$text: no reason"
	fi
	[ "$have" = "$want" ] || echo "$text: $have, not $want"
done'
# shellcheck disable=SC2016
credentials='set -u; . "$1"; dir=$2
while IFS= read -r line; do
	nbd_where=${line%%	*}; line=${line#*	}
	nbd_options=${line%%	*}; line=${line#*	}
	rm -f "$dir"/*; : >"$dir/${line%%	*}"
	want=${line#*	}
	case $want in *@*) want=${want%@*}$dir${want#*@} ;; esac
	nbd_credentials "$dir"
	[ "$nbd_options" = "$want" ] || echo "$nbd_where: $nbd_options, not $want"
done'
# shellcheck disable=SC2016
others='set -u; . "$1"
nbd_options=; nbd_add_options "-persist,--timeout=5,,bs=4096"
[ "$nbd_options" = persist,timeout=5,bs=4096 ] || echo "options: $nbd_options"
nbd_where="uri=nbd+vsock://2/a uri=nbd://host/a"; nbd_needs_network || echo "a network is needed"
nbd_where="uri=nbd+vsock://2/a uri=nbds+unix:///?socket=/a"; ! nbd_needs_network || echo "no network is needed"
nbd_asked nbd:a:b && nbd_asked nbd://a/b && ! nbd_asked /dev/nbd0 && ! nbd_asked UUID=a || echo "what is ours"
nbd_clock; [ "$nbd_now" -gt 0 ] || echo "the clock: $nbd_now"'

for shell in dash 'busybox sh' 'bash --posix'; do
	if ! command -v "${shell%% *}" >/dev/null; then
		count=$((count + 1))
		echo "ok $count - $shell # SKIP it is not installed"
		continue
	fi
	# shellcheck disable=SC2086 # words
	said=$($shell -c "$parse" sh "$functions" '' <<<"$table" 2>&1
		$shell -c "$parse" sh "$functions" 192.0.2.1 <<<"$dhcp" 2>&1
		$shell -c "$credentials" sh "$functions" "$work" <<<"$keys" 2>&1
		$shell -c "$others" sh "$functions" 2>&1)
	ok "$shell: the forms of root= and nbdroot=" '' "$said"
	# The test can fail: one wrong line is found.
	# shellcheck disable=SC2086
	said=$($shell -c "$parse" sh "$functions" '' <<<"host/disk	|host disc|||" 2>&1)
	ok "$shell: a wrong line is found" 'host/disk: |host disk|||, not |host disc|||' "$said"
done
plan
