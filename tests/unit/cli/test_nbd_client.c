/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/nbd_client.h"

#include <errno.h>
#include <string.h>

#include "../settings_text.h"
#include "../unit.h"

enum { MAX_WORDS = 32 };

struct words {
	char *argv[MAX_WORDS + 1];
	char copy[1024];
};

/* Split at blanks; "''" is an empty word. */
static int parse(struct words *w, const char *line, struct opts *o, bool *old_style, struct err *e)
{
	char *save = NULL, *word;
	int argc = 0;

	ck_assert_uint_lt(strlen(line), sizeof(w->copy));
	strcpy(w->copy, line);
	w->argv[argc++] = "nbd-client";
	for (word = strtok_r(w->copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, MAX_WORDS);
		w->argv[argc++] = strcmp(word, "''") ? word : word + 2;
	}
	w->argv[argc] = NULL;
	err_clear(e);
	return nbd_client_parse(argc, w->argv, o, old_style, e);
}

static const struct {
	const char *line;
	enum opts_command command;
	const char *says; /* settings, servers, --find, --foreground and the device */
} right[] = {
	/* Debian's initramfs script, with a port and without one */
	{ "10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark", OPTS_ATTACH,
	  "--root --swap --keep-at-shutdown nbd://10.0.2.100:10809/rootfs /dev/nbd0" },
	{ "10.0.2.100 -N /path /dev/nbd0 -swap -persist -systemd-mark", OPTS_ATTACH,
	  "--root --swap --keep-at-shutdown nbd://10.0.2.100:10809//path /dev/nbd0" },
	/* the same, told to use ioctl by a kernel argument; and as LTSP changes it */
	{ "-nonetlink 10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark",
	  OPTS_ATTACH, "--root --swap --keep-at-shutdown nbd://10.0.2.100:10809/rootfs /dev/nbd0" },
	{ "10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark -b 512", OPTS_ATTACH,
	  "--block-size=512 --root --swap --keep-at-shutdown nbd://10.0.2.100:10809/rootfs /dev/nbd0" },
	/* dracut */
	{ "-p -systemd-mark 10.0.2.100 -name rootfs /dev/nbd0", OPTS_ATTACH,
	  "--root --keep-at-shutdown nbd://10.0.2.100:10809/rootfs /dev/nbd0" },
	{ "-p -systemd-mark 10.0.2.100 10810 /dev/nbd0", OPTS_ATTACH,
	  "--root --keep-at-shutdown nbd://10.0.2.100:10810/ /dev/nbd0" },
	{ "-p -systemd-mark 10.0.2.100 -name 10809/exp /dev/nbd0 -timeout 30", OPTS_ATTACH,
	  "--timeout=30 --root --keep-at-shutdown nbd://10.0.2.100:10809/10809/exp /dev/nbd0" },
	{ "-check /dev/nbd0", OPTS_CHECK, NULL },
	{ "--check nbd0", OPTS_CHECK, NULL },
	{ "-c /dev/nbd0 -bogus", OPTS_CHECK, NULL },
	/* nbd@.service and the init script */
	{ "nbd0", OPTS_TAB, "nbd0" },
	{ "/dev/nbd15", OPTS_TAB, "/dev/nbd15" },
	{ "nbd0 -R", OPTS_TAB, "--read-only nbd0" },
	{ "-persist nbd0 -nofork", OPTS_TAB, "--foreground nbd0" },
	{ "-d /dev/nbd0", OPTS_DETACH, "/dev/nbd0" },
	{ "-disconnect nbd3 -persist -swap", OPTS_DETACH, "nbd3" },
	{ "-L -d nbd3", OPTS_DETACH, "nbd3" },
	/* scripts of others */
	{ "h -persist", OPTS_ATTACH, "nbd://h:10809/ --find" },
	{ "h -N x", OPTS_ATTACH, "--no-supervise nbd://h:10809/x --find" },
	{ "-unix /run/s -N x /dev/nbd1", OPTS_ATTACH,
	  "--no-supervise nbd+unix:///x?socket=/run/s /dev/nbd1" },
	{ "-unix s /dev/nbd1", OPTS_ATTACH, "--no-supervise nbd+unix:///?socket=./s /dev/nbd1" },
	{ "-N x -u /run/s -b 4096 /dev/nbd1 -C 4", OPTS_ATTACH,
	  "--block-size=4096 --connections=4 --no-supervise nbd+unix:///x?socket=/run/s /dev/nbd1" },
	{ "h 2000 /dev/nbd0 -name x -persist", OPTS_ATTACH, "nbd://h:2000/x /dev/nbd0" },
	{ "-persist -timeout 10 -block-size 2048 -connections 8 -N x h /dev/nbd0", OPTS_ATTACH,
	  "--block-size=2048 --connections=8 --timeout=10 nbd://h:10809/x /dev/nbd0" },
	{ "h /dev/nbd0 -R", OPTS_ATTACH, "--read-only --no-supervise nbd://h:10809/ /dev/nbd0" },
	{ "h /dev/nbd0 -nofork", OPTS_ATTACH, "--no-supervise nbd://h:10809/ /dev/nbd0" },
	{ "h /dev/nbd0 -nofork -persist", OPTS_ATTACH, "nbd://h:10809/ --foreground /dev/nbd0" },
	{ "h 2000 /dev/nbd0 bs=1024 timeout=5", OPTS_ATTACH,
	  "--block-size=1024 --timeout=5 --no-supervise nbd://h:2000/ /dev/nbd0" },
	{ "server.domain.com 2001 /dev/nbd1 -swap", OPTS_ATTACH,
	  "--swap nbd://server.domain.com:2001/ /dev/nbd1" },
	{ "-l h", OPTS_EXPORTS, "nbd://h:10809/" },
	{ "-list h 2000", OPTS_EXPORTS, "nbd://h:2000/" },
	{ "h -l -b 512 -swap", OPTS_EXPORTS, "nbd://h:10809/" },
	{ "-l h -A /ca -persist", OPTS_EXPORTS, "--tls-ca=/ca nbds://h:10809/" },
	{ "-l h -K /k -nofork -persist", OPTS_EXPORTS,
	  "--tls-cert=/k --tls-key=/k nbds://h:10809/" },
	{ "-l -u /run/s", OPTS_EXPORTS, "nbd+unix:///?socket=/run/s" },
	/* one dash or two, unique beginnings, a value with = */
	{ "--persist --name=x -conn 2 h /dev/nbd0", OPTS_ATTACH,
	  "--connections=2 nbd://h:10809/x /dev/nbd0" },
	{ "-sys h /dev/nbd0", OPTS_ATTACH, "--root --keep-at-shutdown nbd://h:10809/ /dev/nbd0" },
	{ "-Nx h /dev/nbd0", OPTS_ATTACH, "--no-supervise nbd://h:10809/x /dev/nbd0" },
	{ "-s -swap -m --systemd-mark h /dev/nbd0", OPTS_ATTACH,
	  "--root --swap --keep-at-shutdown nbd://h:10809/ /dev/nbd0" },
	{ "-- h /dev/nbd0", OPTS_ATTACH, "--no-supervise nbd://h:10809/ /dev/nbd0" },
	/* addresses of version 6 */
	{ "::1 2000 /dev/nbd0 -p", OPTS_ATTACH, "nbd://[::1]:2000/ /dev/nbd0" },
	{ "fe80::1%eth0 /dev/nbd0 -p", OPTS_ATTACH, "nbd://[fe80::1%25eth0]:10809/ /dev/nbd0" },
	{ "[::1] 2000 /dev/nbd0 -p", OPTS_ATTACH, "nbd://[::1]:2000/ /dev/nbd0" },
	{ "h /dev/nbd0 -p -A /a -F /f -K /k -H n", OPTS_ATTACH,
	  "--tls-ca=/a --tls-cert=/f --tls-key=/k --tls-hostname=n nbds://h:10809/ /dev/nbd0" },
	{ "h /dev/nbd0 -p -keyfile /k -x", OPTS_ATTACH,
	  "--tls --tls-cert=/k --tls-key=/k nbds://h:10809/ /dev/nbd0" },
	{ "-h", OPTS_HELP, NULL },
	{ "--help", OPTS_HELP, NULL },
	{ "-V -bogus", OPTS_VERSION, NULL },
};

START_TEST(right_lines)
{
	static char said[SETTINGS_LINE_MAX + 64];
	static struct opts o;
	bool old_style;
	struct words w;
	struct err e;

	ck_assert_msg(!parse(&w, right[_i].line, &o, &old_style, &e), "%s: %s", right[_i].line,
		      e.text);
	ck_assert_int_eq((int)o.command, (int)right[_i].command);
	if (!right[_i].says) {
		ck_assert_uint_eq(o.device_count, o.command == OPTS_CHECK);
		if (o.device_count)
			ck_assert_ptr_nonnull(strstr(right[_i].line, o.devices[0]));
		return;
	}
	settings_line(&o.settings, said);
	if (o.find)
		strcat(said, " --find");
	if (o.foreground)
		strcat(said, " --foreground");
	if (o.device_count)
		strcat(strcat(said, " "), o.devices[0]);
	ck_assert_str_eq(said + (said[0] == ' '), right[_i].says);
}
END_TEST

static const struct {
	const char *line;
	const char *says;
} wrong[] = {
	{ "-- h -N", "-N is no nbd device" },
	{ "h /dev/sda", "/dev/sda is no nbd device" },
	{ "-d /dev/sda", "/dev/sda is no nbd device" },
	{ "h /dev/nbd0 -b many", "-block-size many: a number" },
	{ "h /dev/nbd0 bs=1000", "-block-size 1000: a power of two" },
	{ "h /dev/nbd0 -A ''", "-cacertfile needs 1 to 1023 bytes" },
	{ "h 70000 /dev/nbd0", "the port \"70000\"" },
	{ "", "no host and no device" },
	{ "-persist", "no host and no device" },
	{ "-l", "no host and no device" },
	{ "-zzz h /dev/nbd0", "option -zzz: unknown" },
	{ "h /dev/nbd0 -q", "option -q: unknown" },
	{ "h /dev/nbd0 -t", "option -t: it needs a value" },
	{ "h /dev/nbd0 -persist=1", "option -persist=1: " },
	{ "h /dev/nbd0 --s", "option --s: " },
	{ "h 2000 /dev/nbd0 x", "x: too many operands" },
	{ "h /dev/nbd0 x", "x: too many operands" },
	{ "h /dev/nbd0 what=4", "what=4: bs= and timeout= are all" },
	{ "h /dev/nbd0 -size 4096", "-size: the size of the export" },
	{ "h /dev/nbd0 -B 4096", "-size: the size of the export" },
	{ "h /dev/nbd0 -P", "-preinit: there is no" },
	{ "h /dev/nbd0 -sdp", "-sdp: Linux has no" },
	{ "h /dev/nbd0 -no-optgo", "-no-optgo: a server without" },
	{ "/run/s /dev/nbd0", "host /run/s: no name" },
	{ "h:2000 /dev/nbd0", "host h:2000: no name" },
	{ "nbd://h/x /dev/nbd0", "host nbd://h/x: no name" },
	{ "'' /dev/nbd0", "host : no name" },
	{ "-u /run/s 2000 /dev/nbd0", "port 2000: a Unix socket has none" },
};

START_TEST(wrong_lines)
{
	static struct opts o;
	bool old_style;
	struct words w;
	struct err e;

	ck_assert_msg(parse(&w, wrong[_i].line, &o, &old_style, &e) == -EINVAL, "%s",
		      wrong[_i].line);
	ck_assert_int_eq((int)e.kind, ERR_USAGE);
	ck_assert_msg(strstr(e.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].line, e.text);
}
END_TEST

START_TEST(notes)
{
	static struct opts o;
	bool old;
	struct words w;
	struct err e;

	ck_assert(!parse(&w, "h /dev/nbd0 bs=512 -L", &o, &old, &e) && old);
	ck_assert_int_eq((int)o.client, OPTS_CLIENT_IOCTL);
	ck_assert_str_eq(o.settings.servers[0].export, "");
	ck_assert(o.settings.supervision.none && o.persist_counts);
	ck_assert(!parse(&w, "h /dev/nbd0 -N x -p", &o, &old, &e) && !old);
	ck_assert_int_eq((int)o.client, OPTS_CLIENT_NETLINK);
	ck_assert_str_eq(o.settings.servers[0].export, "x");
	ck_assert(!o.settings.supervision.none && !o.persist_counts);
	/* the nbdtab has its own "persist", which counts unless one is given */
	ck_assert(!parse(&w, "nbd0", &o, &old, &e) && o.persist_counts);
	ck_assert(!parse(&w, "nbd0 -s", &o, &old, &e) && !o.persist_counts);
	ck_assert(!parse(&w, "nbd0 -m", &o, &old, &e) && !o.persist_counts);
}
END_TEST

START_TEST(too_long)
{
	static char name[2 * URI_EXPORT_MAX];
	static struct opts o;
	char *argv[100] = { "nbd-client", "h", "-N", name, "/dev/nbd0" };
	bool old_style;
	struct err e;

	memset(name, 'x', sizeof(name) - 1);
	ck_assert_int_eq(nbd_client_parse(5, argv, &o, &old_style, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "4096"));
	argv[1] = name;
	ck_assert_int_eq(nbd_client_parse(2, argv, &o, &old_style, &e), -EINVAL);
	/* options that are repeated are no matter */
	argv[1] = "h";
	for (int i = 2; i < 99; i++)
		argv[i] = "-R";
	ck_assert_int_eq(nbd_client_parse(99, argv, &o, &old_style, &e), 0);
	ck_assert(o.settings.read_only);
}
END_TEST

START_TEST(called)
{
	ck_assert(nbd_client_is_meant("nbd-client"));
	ck_assert(nbd_client_is_meant("/sbin/nbd-client"));
	ck_assert(nbd_client_is_meant("@sbin/nbd-client"));
	ck_assert(nbd_client_is_meant("@nbd-client"));
	ck_assert(!nbd_client_is_meant("nbd-attach"));
	ck_assert(!nbd_client_is_meant("/sbin/nbd-client/nbd-attach"));
	ck_assert(!nbd_client_is_meant("xnbd-client"));
	ck_assert(!nbd_client_is_meant(NULL));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("nbd_client");
	TCase *c = tcase_create("nbd_client");

	tcase_add_loop_test(c, right_lines, 0, sizeof(right) / sizeof(right[0]));
	tcase_add_loop_test(c, wrong_lines, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(c, notes);
	tcase_add_test(c, too_long);
	tcase_add_test(c, called);
	suite_add_tcase(s, c);
	return s;
}
