/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/nbd_client.h"

#include <errno.h>
#include <string.h>

#include "../unit.h"

enum { MAX_WORDS = 32 };

struct words {
	char *argv[MAX_WORDS + 1];
	char copy[1024];
};

/* Split at blanks; "''" is an empty word. */
static int parse(struct words *w, const char *line, struct personality *p, struct err *e)
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
	return nbd_client_parse(argc, w->argv, p, e);
}

static const struct {
	const char *line;
	enum nbd_client_task task;
	const char *words; /* without the first, "''" for an empty one */
} right[] = {
	/* Debian's initramfs script, with a port and without one */
	{ "10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark", NBD_CLIENT_ATTACH,
	  "--swap --root --keep-at-shutdown -- 10.0.2.100:10809 rootfs /dev/nbd0" },
	{ "10.0.2.100 -N /path /dev/nbd0 -swap -persist -systemd-mark", NBD_CLIENT_ATTACH,
	  "--swap --root --keep-at-shutdown -- 10.0.2.100 /path /dev/nbd0" },
	/* the same, told to use ioctl by a kernel argument; and as LTSP changes it */
	{ "-nonetlink 10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark",
	  NBD_CLIENT_ATTACH,
	  "--swap --root --keep-at-shutdown -- 10.0.2.100:10809 rootfs /dev/nbd0" },
	{ "10.0.2.100 -N rootfs 10809 /dev/nbd0 -swap -persist -systemd-mark -b 512",
	  NBD_CLIENT_ATTACH,
	  "--swap --root --keep-at-shutdown --block-size=512 -- 10.0.2.100:10809 rootfs /dev/nbd0" },
	/* dracut */
	{ "-p -systemd-mark 10.0.2.100 -name rootfs /dev/nbd0", NBD_CLIENT_ATTACH,
	  "--root --keep-at-shutdown -- 10.0.2.100 rootfs /dev/nbd0" },
	{ "-p -systemd-mark 10.0.2.100 10810 /dev/nbd0", NBD_CLIENT_ATTACH,
	  "--root --keep-at-shutdown -- 10.0.2.100:10810 '' /dev/nbd0" },
	{ "-p -systemd-mark 10.0.2.100 -name 10809/exp /dev/nbd0 -timeout 30", NBD_CLIENT_ATTACH,
	  "--root --keep-at-shutdown --timeout=30 -- 10.0.2.100 10809/exp /dev/nbd0" },
	{ "-check /dev/nbd0", NBD_CLIENT_CHECK, NULL },
	{ "--check nbd0", NBD_CLIENT_CHECK, NULL },
	{ "-c /dev/nbd0 -bogus", NBD_CLIENT_CHECK, NULL },
	/* nbd@.service and the init script */
	{ "nbd0", NBD_CLIENT_TAB, "-- nbd0" },
	{ "/dev/nbd15", NBD_CLIENT_TAB, "-- /dev/nbd15" },
	{ "nbd0 -R", NBD_CLIENT_TAB, "--read-only -- nbd0" },
	{ "-persist nbd0 -nofork", NBD_CLIENT_TAB, "--foreground -- nbd0" },
	{ "-d /dev/nbd0", NBD_CLIENT_DETACH, "--detach -- /dev/nbd0" },
	{ "-disconnect nbd3 -persist -swap", NBD_CLIENT_DETACH, "--detach -- nbd3" },
	{ "-L -d nbd3", NBD_CLIENT_DETACH, "--detach -- nbd3" },
	/* scripts of others */
	{ "h -persist", NBD_CLIENT_ATTACH, "--find -- h ''" },
	{ "h -N x", NBD_CLIENT_ATTACH, "--no-supervise --find -- h x" },
	{ "-unix /run/s -N x /dev/nbd1", NBD_CLIENT_ATTACH,
	  "--no-supervise -- /run/s x /dev/nbd1" },
	{ "-unix s /dev/nbd1", NBD_CLIENT_ATTACH, "--no-supervise -- ./s '' /dev/nbd1" },
	{ "-N x -u /run/s -b 4096 /dev/nbd1 -C 4", NBD_CLIENT_ATTACH,
	  "--block-size=4096 --connections=4 --no-supervise -- /run/s x /dev/nbd1" },
	{ "h 2000 /dev/nbd0 -name x -persist", NBD_CLIENT_ATTACH, "-- h:2000 x /dev/nbd0" },
	{ "-persist -timeout 10 -block-size 2048 -connections 8 -N x h /dev/nbd0",
	  NBD_CLIENT_ATTACH, "--timeout=10 --block-size=2048 --connections=8 -- h x /dev/nbd0" },
	{ "h /dev/nbd0 -R", NBD_CLIENT_ATTACH, "--read-only --no-supervise -- h '' /dev/nbd0" },
	{ "h /dev/nbd0 -nofork", NBD_CLIENT_ATTACH, "--no-supervise -- h '' /dev/nbd0" },
	{ "h /dev/nbd0 -nofork -persist", NBD_CLIENT_ATTACH, "--foreground -- h '' /dev/nbd0" },
	{ "h 2000 /dev/nbd0 bs=1024 timeout=5", NBD_CLIENT_ATTACH,
	  "--block-size=1024 --timeout=5 --no-supervise -- h:2000 '' /dev/nbd0" },
	{ "server.domain.com 2001 /dev/nbd1 -swap", NBD_CLIENT_ATTACH,
	  "--swap -- server.domain.com:2001 '' /dev/nbd1" },
	{ "-l h", NBD_CLIENT_LIST, "--exports -- h" },
	{ "-list h 2000", NBD_CLIENT_LIST, "--exports -- h:2000" },
	{ "h -l -b 512 -swap", NBD_CLIENT_LIST, "--exports -- h" },
	{ "-l h -A /ca -persist", NBD_CLIENT_LIST, "--tls-ca=/ca --exports -- h" },
	{ "-l h -K /k -nofork -persist", NBD_CLIENT_LIST,
	  "--tls-key=/k --exports --tls-cert=/k -- h" },
	{ "-l -u /run/s", NBD_CLIENT_LIST, "--exports -- /run/s" },
	/* one dash or two, unique beginnings, a value with = */
	{ "--persist --name=x -conn 2 h /dev/nbd0", NBD_CLIENT_ATTACH,
	  "--connections=2 -- h x /dev/nbd0" },
	{ "-sys h /dev/nbd0", NBD_CLIENT_ATTACH, "--root --keep-at-shutdown -- h '' /dev/nbd0" },
	{ "-Nx h /dev/nbd0", NBD_CLIENT_ATTACH, "--no-supervise -- h x /dev/nbd0" },
	{ "-s -swap -m --systemd-mark h /dev/nbd0", NBD_CLIENT_ATTACH,
	  "--swap --root --keep-at-shutdown -- h '' /dev/nbd0" },
	{ "-- h -N", NBD_CLIENT_ATTACH, "--no-supervise -- h '' -N" },
	/* addresses of version 6 */
	{ "::1 2000 /dev/nbd0 -p", NBD_CLIENT_ATTACH, "-- [::1]:2000 '' /dev/nbd0" },
	{ "fe80::1%eth0 /dev/nbd0 -p", NBD_CLIENT_ATTACH, "-- [fe80::1%eth0] '' /dev/nbd0" },
	{ "[::1] 2000 /dev/nbd0 -p", NBD_CLIENT_ATTACH, "-- [::1]:2000 '' /dev/nbd0" },
	{ "h /dev/nbd0 -p -A /a -F /f -K /k -H n", NBD_CLIENT_ATTACH,
	  "--tls-ca=/a --tls-cert=/f --tls-key=/k --tls-hostname=n -- h '' /dev/nbd0" },
	{ "h /dev/nbd0 -p -keyfile /k -x", NBD_CLIENT_ATTACH,
	  "--tls-key=/k --tls --tls-cert=/k -- h '' /dev/nbd0" },
	{ "-h", NBD_CLIENT_HELP, NULL },
	{ "--help", NBD_CLIENT_HELP, NULL },
	{ "-V -bogus", NBD_CLIENT_VERSION, NULL },
};

START_TEST(right_lines)
{
	static struct personality p;
	char words[1024] = "";
	struct words w;
	struct err e;

	ck_assert_msg(!parse(&w, right[_i].line, &p, &e), "%s: %s", right[_i].line, e.text);
	ck_assert_int_eq((int)p.task, (int)right[_i].task);
	if (!right[_i].words) {
		ck_assert_int_eq(p.device != NULL, p.task == NBD_CLIENT_CHECK);
		return;
	}
	ck_assert_str_eq(p.words[0], "nbd-attach");
	ck_assert_ptr_null(p.words[p.word_count]);
	for (int i = 1; i < p.word_count; i++)
		strcat(strcat(words, i > 1 ? " " : ""), p.words[i][0] ? p.words[i] : "''");
	ck_assert_str_eq(words, right[_i].words);
	ck_assert_int_eq(p.any_device, strstr(words, "--find") != NULL);
}
END_TEST

static const struct {
	const char *line;
	const char *says;
} wrong[] = {
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
	static struct personality p;
	struct words w;
	struct err e;

	ck_assert_msg(parse(&w, wrong[_i].line, &p, &e) == -EINVAL, "%s", wrong[_i].line);
	ck_assert_int_eq((int)e.kind, ERR_USAGE);
	ck_assert_msg(strstr(e.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].line, e.text);
}
END_TEST

START_TEST(notes)
{
	static struct personality p;
	struct words w;
	struct err e;

	ck_assert(!parse(&w, "h /dev/nbd0 bs=512 -L", &p, &e) && p.old_style && p.ioctl_words &&
		  p.default_export);
	ck_assert(!p.supervised);
	ck_assert(!parse(&w, "h /dev/nbd0 -N x -p", &p, &e) && !p.old_style && !p.ioctl_words &&
		  !p.default_export);
	ck_assert(p.supervised);
}
END_TEST

START_TEST(too_long)
{
	static struct personality p;
	static char name[NBD_CLIENT_TEXT_MAX];
	char *argv[3 * NBD_CLIENT_WORDS_MAX] = { "nbd-client", "h", "-N", name, "/dev/nbd0" };
	struct err e;

	memset(name, 'x', sizeof(name) - 1);
	ck_assert_int_eq(nbd_client_parse(5, argv, &p, &e), -E2BIG);
	for (int i = 2; i < 3 * NBD_CLIENT_WORDS_MAX - 1; i++)
		argv[i] = "-R";
	ck_assert_int_eq(nbd_client_parse(3 * NBD_CLIENT_WORDS_MAX - 1, argv, &p, &e), -E2BIG);
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
	Suite *s = suite_create("personality");
	TCase *c = tcase_create("personality");

	tcase_add_loop_test(c, right_lines, 0, sizeof(right) / sizeof(right[0]));
	tcase_add_loop_test(c, wrong_lines, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(c, notes);
	tcase_add_test(c, too_long);
	tcase_add_test(c, called);
	suite_add_tcase(s, c);
	return s;
}
