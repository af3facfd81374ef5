/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/nbdtab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../settings_text.h"
#include "../unit.h"

/* What an entry says, its settings after what else there is, and the device. */
static void show(const struct nbdtab_entry *en, char *buf)
{
	char *line = strchr(strcpy(buf, en->persist ? "persist: " :
					en->no_auto ? "noauto: " :
						      ""),
			    '\0');

	settings_line(&en->settings, line);
	sprintf(strchr(line, '\0'), " nbd%u", en->index);
}

static int next(const char *line, size_t len, struct nbdtab_entry *en, struct err *e)
{
	/* of exactly this size, for AddressSanitizer */
	char *text = malloc(len ? len : 1);
	struct nbdtab t = { .text = text, .len = len };
	int ret;

	ck_assert_ptr_nonnull(text);
	memcpy(text, line, len);
	err_clear(e);
	ret = nbdtab_next(&t, en, e);
	free(text);
	return ret;
}

static const struct {
	const char *line;
	const char *says;
} right[] = {
	/* the examples of nbdtab(5) */
	{ "nbd0 nbdserver.example.com swapexport swap,persist",
	  "persist: --swap nbd://nbdserver.example.com:10809/swapexport nbd0" },
	{ "nbd1 nbdserver.example.com data", "nbd://nbdserver.example.com:10809/data nbd1" },

	{ "\t nbd12 \t h\tx \t", "nbd://h:10809/x nbd12" },
	{ "nbd0 h x\r\n", "nbd://h:10809/x nbd0" },
	{ "nbd0 h x # bs=4096", "nbd://h:10809/x nbd0" },
	{ "nbd0 h x#y", "nbd://h:10809/x%23y nbd0" },
	{ "nbd0 h x bs=4096", "--block-size=4096 nbd://h:10809/x nbd0" },
	{ "nbd0 h x port=10810", "nbd://h:10810/x nbd0" },
	{ "nbd0 192.0.2.1 x port=1,timeout=7", "--timeout=7 nbd://192.0.2.1:1/x nbd0" },
	{ "nbd0 ::1 x", "nbd://[::1]:10809/x nbd0" },
	{ "nbd0 ::1 x port=2", "nbd://[::1]:2/x nbd0" },
	{ "nbd0 [::1] x port=2", "nbd://[::1]:2/x nbd0" },
	{ "nbd0 fe80::1%eth0 x port=2", "nbd://[fe80::1%25eth0]:2/x nbd0" },
	{ "nbd0 h:10 x", "nbd://h:10/x nbd0" },
	{ "nbd0 /run/s x unix", "nbd+unix:///x?socket=/run/s nbd0" },
	{ "nbd0 s x unix", "nbd+unix:///x?socket=./s nbd0" },
	{ "nbd0 h x cacertfile=/a,certfile=/b,keyfile=/c,tlshostname=n",
	  "--tls-ca=/a --tls-cert=/b --tls-key=/c --tls-hostname=n nbd://h:10809/x nbd0" },
	{ "nbd0 h x keyfile=/c", "--tls-cert=/c --tls-key=/c nbd://h:10809/x nbd0" },
	{ "nbd0 h x tls-key=/c", "--tls-key=/c nbd://h:10809/x nbd0" },
	{ "nbd0 h x keyfile=/c,tls-cert=/b", "--tls-cert=/b --tls-key=/c nbd://h:10809/x nbd0" },
	{ "nbd0 h x conns=4,persist", "persist: --connections=4 nbd://h:10809/x nbd0" },
	{ "nbd0 h x _distribution=what,_so,persist", "persist: nbd://h:10809/x nbd0" },
	{ "nbd0 h x noauto", "noauto: nbd://h:10809/x nbd0" },
	{ "nbd0 h x tls-priority=NORMAL:%COMPAT=",
	  "--tls-priority=NORMAL:%COMPAT= nbd://h:10809/x nbd0" },
	{ "nbd0 h x read-only,tls,bs=512,",
	  "--read-only --block-size=512 --tls nbd://h:10809/x nbd0" },
	{ "nbd3 uri=nbd://h/x", "nbd://h:10809/x nbd3" },
	{ "nbd3 uri=nbd://h/x connections=auto", "--connections=auto nbd://h:10809/x nbd3" },
	{ "nbd3 uri=nbd+unix:///x?socket=/a,b uri=nbd://c/d tls-psk-file=/k",
	  "--tls-psk-file=/k nbd+unix:///x?socket=/a%2Cb nbd://c:10809/d nbd3" },
	/* judged when the command line is known */
	{ "nbd0 h x dead-timeout=5", "--dead-timeout=5 nbd://h:10809/x nbd0" },
};

START_TEST(right_lines)
{
	static struct nbdtab_entry en;
	static char said[SETTINGS_LINE_MAX + 32];
	struct err e;

	ck_assert_msg(next(right[_i].line, strlen(right[_i].line), &en, &e) == 1, "%s: %s",
		      right[_i].line, e.text);
	show(&en, said);
	ck_assert_str_eq(said, right[_i].says);
	ck_assert_uint_eq(en.line, 1);
	ck_assert(en.has_device);
}
END_TEST

static const struct {
	const char *line;
	const char *says;
} wrong[] = {
	{ "nbd0", "line 1: nbd0: HOST and EXPORT" },
	{ "nbd0 h", "HOST and EXPORT" },
	{ "nbd0 h # x", "HOST and EXPORT" },
	{ "nbd0 h x bs=512 persist", "too many fields" },
	{ "nbd0 h x bs=512 persist and many more fields than there is room for in here",
	  "too many fields" },
	{ "/dev/nbd0 h x", "device /dev/nbd0: nbdN" },
	{ "sda h x", "device sda" },
	{ "nbd0p1 h x", "device nbd0p1" },
	{ "nbd01 h x", "device nbd01" },
	{ "nbd0000000000000000000000000000000000000000 h x", "nbdN is needed" },
	{ "nbd0 h x sdp", "option sdp: Linux has no Socket Direct" },
	{ "nbd0 h x no_optgo", "option no_optgo: " },
	{ "nbd0 h x bs", "option bs: it needs a value" },
	{ "nbd0 h x bs=", "option bs: it needs a value" },
	{ "nbd0 h x persist=1", "option persist=1: it takes no value" },
	{ "nbd0 h x swap=", "takes no value" },
	{ "nbd0 h x bs=512,bs=512", "option bs: it is given twice" },
	{ "nbd0 h x bs=512,block-size=512", "option block-size: it is given twice" },
	{ "nbd0 h x persist,persist", "option persist: it is given twice" },
	{ "nbd0 h x bs=many", "line 1: option bs many: a number from 0 to" },
	{ "nbd0 h x block-size=1000", "option block-size 1000: a power of two" },
	{ "nbd0 h x conns=0", "option conns 0: auto or a number from 1 to 64" },
	{ "nbd0 h x tls-offload=yes", "option tls-offload needs auto, require or no" },
	{ "nbd0 h x server=nbd://h/x", "option server: there is none" },
	{ "nbd0 h x command=true", "option command: there is none" },
	{ "nbd0 h x \xff=1", "option \\xff: there is none" },
	{ "nbd0 h \xff", "the export name" },
	{ "nbd0 uri=", "line 1: " },
	{ "nbd0 uri=nbd://h/x uri=nbds://h/x", "nbds and nbd URIs are mixed" },
	{ "nbd0 h x port=0", "the port \"0\"" },
	{ "nbd0 h x help", "option help: there is none" },
	{ "nbd0 h x detach", "there is none" },
	{ "nbd0 h x \x1b[2J", "option \\x1b[2J: there is none" },
	{ "nbd0 h x ,", "one of them is empty" },
	{ "nbd0 h x persist,,swap", "one of them is empty" },
	{ "nbd0 h:1 x port=2", "has a port already" },
	{ "nbd0 h x port=1234567890", "the port is no number" },
	{ "nbd0 /run/s x", "a path, without the option unix" },
	{ "nbd0 /run/s x unix,port=5", "a Unix socket has no port" },
	{ "nbd0 nbd://h/x y", "a URI is given as uri=URI" },
	{ "nbd0 uri=nbd://h/x port=5", "option port: a URI says it itself" },
	{ "nbd0 uri=nbd://h/x unix", "option unix: a URI says it itself" },
	{ "nbd0 uri=nbd://h/x swap persist", "too many fields" },
	{ "nbd0 uri=1 uri=2 uri=3 uri=4 uri=5 uri=6 uri=7 uri=8 uri=9",
	  "option uri: there is none" },
};

START_TEST(wrong_lines)
{
	static struct nbdtab_entry en;
	struct err e;

	ck_assert_int_eq(next(wrong[_i].line, strlen(wrong[_i].line), &en, &e), -EINVAL);
	ck_assert_int_eq((int)e.kind, ERR_USAGE);
	ck_assert_msg(strstr(e.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].line, e.text);
	ck_assert_uint_eq(en.line, 1);
}
END_TEST

START_TEST(nothing)
{
	static const char *const texts[] = { "", "\n", "\n\n", "# nbd0 h x", "  #x\n\t\n#y", " " };
	static struct nbdtab_entry en;
	struct err e;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_int_eq(next(texts[i], strlen(texts[i]), &en, &e), 0);
}
END_TEST

START_TEST(limits)
{
	static char line[NBDTAB_LINE_MAX + 64];
	static struct nbdtab_entry en;
	struct err e;

	ck_assert_int_eq(next("nbd0 h x\0y", 10, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "NUL"));

	/* the longest line that there is */
	memset(line, 'k', sizeof(line));
	memcpy(line, "nbd0 h x _", 10);
	ck_assert_int_eq(next(line, NBDTAB_LINE_MAX, &en, &e), 1);
	ck_assert_int_eq(next(line, NBDTAB_LINE_MAX + 1, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "more than 8191 bytes"));
	/* the longest value, and one byte more */
	memcpy(line, "nbd0 h x keyfile=", 17);
	ck_assert_int_eq(next(line, 17 + TLS_PATH_MAX, &en, &e), 1);
	ck_assert_uint_eq(strlen(en.settings.tls.key), TLS_PATH_MAX);
	ck_assert_str_eq(en.settings.tls.cert, en.settings.tls.key);
	ck_assert_int_eq(next(line, 17 + TLS_PATH_MAX + 1, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "option keyfile needs 1 to 1023 bytes"));
}
END_TEST

static const char file[] = "# exports\n"
			   "nbd0 a x\n"
			   "nbd1 b y bogus\n"
			   "wrong\n"
			   "nbd2 c z bs=512\n"
			   "nbd2 d z\n"
			   "nbd3 e w persist";

START_TEST(all_lines)
{
	static const struct {
		int ret;
		unsigned line, index;
		bool has_device;
	} expected[] = {
		{ 1, 2, 0, true }, { -EINVAL, 3, 1, true }, { -EINVAL, 4, 0, false },
		{ 1, 5, 2, true }, { 1, 6, 2, true },       { 1, 7, 3, true },
	};
	struct nbdtab t = { .text = file, .len = strlen(file) };
	static struct nbdtab_entry en;
	struct err e;

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		ck_assert_int_eq(nbdtab_next(&t, &en, &e), expected[i].ret);
		ck_assert_uint_eq(en.line, expected[i].line);
		ck_assert_uint_eq(en.index, expected[i].index);
		ck_assert_int_eq(en.has_device, expected[i].has_device);
	}
	ck_assert_int_eq(nbdtab_next(&t, &en, &e), 0);
	ck_assert_int_eq(nbdtab_next(&t, &en, &e), 0);
}
END_TEST

START_TEST(one_device)
{
	static struct nbdtab_entry en;
	struct err e;

	ck_assert_int_eq(nbdtab_find(file, strlen(file), 0, &en, &e), 0);
	ck_assert_uint_eq(en.line, 2);
	ck_assert_str_eq(en.settings.servers[0].host, "a");
	ck_assert_int_eq(nbdtab_find(file, strlen(file), 3, &en, &e), 0);
	ck_assert_uint_eq(en.line, 7);
	ck_assert(en.persist);
	ck_assert_int_eq(nbdtab_find(file, strlen(file), 1, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "line 3: option bogus"));
	ck_assert_int_eq(nbdtab_find(file, strlen(file), 2, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "line 6: nbd2 is in line 5 already"));
	ck_assert_int_eq(nbdtab_find(file, strlen(file), 4, &en, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "nbd4"));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("nbdtab");
	TCase *c = tcase_create("nbdtab");

	tcase_add_loop_test(c, right_lines, 0, sizeof(right) / sizeof(right[0]));
	tcase_add_loop_test(c, wrong_lines, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(c, nothing);
	tcase_add_test(c, limits);
	tcase_add_test(c, all_lines);
	tcase_add_test(c, one_device);
	suite_add_tcase(s, c);
	return s;
}
