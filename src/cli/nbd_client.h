/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * personality: the command line of nbd-client 3.24, for whoever calls this program by that name: words
 * of our own command line are made of it, or it is refused with the reason. Touches nothing but argv.
 *
 * Option by option, as nbd-client(8) lists them:
 *
 *     -block-size, bs=         --block-size           -persist         no --no-supervise
 *     -connections             --connections          -swap            --swap
 *     -timeout, timeout=       --timeout              -systemd-mark    --root --keep-at-shutdown
 *     -readonly                --read-only            -nofork          with -persist: --foreground
 *     -name, -unix             the operands           -check, -list, -disconnect
 *     -cacertfile, -certfile, -keyfile, -tlshostname, -enable-tls      --tls-...
 *     -nonetlink               still netlink, but the words printed are those of the ioctl form
 *     -size, -preinit, -sdp, -no-optgo                 refused
 *
 * A connection that is lost is an I/O error without -persist, -swap or -systemd-mark, as it is there;
 * with one of them it is replaced, which nbd-client 3.24 does not do over netlink.
 */
#ifndef NBD_ATTACH_NBD_CLIENT_H
#define NBD_ATTACH_NBD_CLIENT_H

#include <stdbool.h>

#include "base/err.h"

enum nbd_client_task {
	NBD_CLIENT_ATTACH,
	NBD_CLIENT_TAB, /* as the nbdtab has it */
	NBD_CLIENT_DETACH,
	NBD_CLIENT_CHECK,
	NBD_CLIENT_LIST,
	NBD_CLIENT_HELP,
	NBD_CLIENT_VERSION,
};

enum {
	NBD_CLIENT_WORDS_MAX = 32,
	NBD_CLIENT_TEXT_MAX = 32768,
};

/* Points into itself and argv, so that it cannot be copied. */
struct personality {
	enum nbd_client_task task;
	bool any_device; /* of attach: the kernel chooses */
	bool supervised;
	bool ioctl_words;    /* -nonetlink */
	bool old_style;      /* bs= or timeout=, which is worth a warning */
	bool default_export; /* no name was given, which nbd-client warns of */
	const char *device;  /* of check, as it was given */
	char *words[NBD_CLIENT_WORDS_MAX +
		    1]; /* from words[0] on, NULL-terminated; but for check, help and version */
	int word_count;
	char text[NBD_CLIENT_TEXT_MAX];
	unsigned used;
};

/*
 * Parses as nbd-client does: one dash or two for long options, their unique beginnings, options and
 * operands in any order; HOST [PORT] DEVICE, or DEVICE alone; -check ends it. Returns 0, or -EINVAL (ERR_USAGE).
 * What the words say is judged by opts_parse.
 */
int nbd_client_parse(int argc, char *argv[], struct personality *p, struct err *e);

/* True when the program was called as nbd-client, from any directory; a mark of systemd does not count. */
bool nbd_client_is_meant(const char *argv0);

#endif
