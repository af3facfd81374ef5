/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy/nbdtab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

/* The words of an entry, separated by blanks, after what else it says. */
static void join(const struct nbdtab_entry *en, char *buf)
{
	strcpy(buf, en->persist ? "persist: " : en->no_auto ? "noauto: " : "");
	for (unsigned i = 0; i < en->option_count; i++)
		strcat(strcat(buf, en->options[i]), " ");
	for (unsigned i = 0; i < en->operand_count; i++)
		strcat(strcat(buf, i ? " " : ""), en->operands[i]);
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
	const char *words;
} right[] = {
	/* the examples of nbdtab(5) */
	{ "nbd0 nbdserver.example.com swapexport swap,persist",
	  "persist: --swap nbdserver.example.com swapexport nbd0" },
	{ "nbd1 nbdserver.example.com data", "nbdserver.example.com data nbd1" },

	{ "\t nbd12 \t h\tx \t", "h x nbd12" },
	{ "nbd0 h x\r\n", "h x nbd0" },
	{ "nbd0 h x # bs=4096", "h x nbd0" },
	{ "nbd0 h x#y", "h x#y nbd0" },
	{ "nbd0 h x bs=4096", "--block-size=4096 h x nbd0" },
	{ "nbd0 h x port=10810", "h:10810 x nbd0" },
	{ "nbd0 192.0.2.1 x port=1,timeout=7", "--timeout=7 192.0.2.1:1 x nbd0" },
	{ "nbd0 ::1 x", "::1 x nbd0" },
	{ "nbd0 ::1 x port=2", "[::1]:2 x nbd0" },
	{ "nbd0 [::1] x port=2", "[::1]:2 x nbd0" },
	{ "nbd0 fe80::1%eth0 x port=2", "[fe80::1%eth0]:2 x nbd0" },
	{ "nbd0 h:10 x", "h:10 x nbd0" },
	{ "nbd0 /run/s x unix", "/run/s x nbd0" },
	{ "nbd0 s x unix", "./s x nbd0" },
	{ "nbd0 h x cacertfile=/a,certfile=/b,keyfile=/c,tlshostname=n",
	  "--tls-ca=/a --tls-cert=/b --tls-key=/c --tls-hostname=n h x nbd0" },
	{ "nbd0 h x keyfile=/c", "--tls-key=/c --tls-cert=/c h x nbd0" },
	{ "nbd0 h x conns=4,persist", "persist: --connections=4 h x nbd0" },
	{ "nbd0 h x _distribution=what,_so,persist", "persist: h x nbd0" },
	{ "nbd0 h x noauto", "noauto: h x nbd0" },
	{ "nbd0 h x tls-priority=NORMAL:%COMPAT=", "--tls-priority=NORMAL:%COMPAT= h x nbd0" },
	{ "nbd0 h x read-only,tls,bs=512,", "--read-only --tls --block-size=512 h x nbd0" },
	{ "nbd3 uri=nbd://h/x", "nbd://h/x nbd3" },
	{ "nbd3 uri=nbd://h/x connections=auto", "--connections=auto nbd://h/x nbd3" },
	{ "nbd3 uri=nbd+unix:///x?socket=/a,b uri=nbd://c/d tls-psk-file=/k",
	  "--tls-psk-file=/k nbd+unix:///x?socket=/a,b nbd://c/d nbd3" },
	/* judged later */
	{ "nbd0 h x bs=many", "--block-size=many h x nbd0" },
	{ "nbd0 uri=", " nbd0" },
};

START_TEST(right_lines)
{
	static struct nbdtab_entry en;
	char words[sizeof(en.text) + 16];
	struct err e;

	ck_assert_msg(next(right[_i].line, strlen(right[_i].line), &en, &e) == 1, "%s: %s",
		      right[_i].line, e.text);
	join(&en, words);
	ck_assert_str_eq(words, right[_i].words);
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

	/* the longest line that there is, of the longest words that come of it */
	memset(line, 'k', sizeof(line));
	memcpy(line, "nbd0 h x keyfile=", 17);
	ck_assert_int_eq(next(line, NBDTAB_LINE_MAX, &en, &e), 1);
	ck_assert_uint_eq(strlen(en.options[0]), strlen("--tls-key=") + NBDTAB_LINE_MAX - 17);
	ck_assert_uint_eq(strlen(en.options[1]), strlen("--tls-cert=") + NBDTAB_LINE_MAX - 17);
	ck_assert_int_eq(next(line, NBDTAB_LINE_MAX + 1, &en, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "more than 8191 bytes"));
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
	ck_assert_str_eq(en.operands[0], "a");
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
