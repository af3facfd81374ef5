/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/record.h"

enum { WORDS_MAX = 256 };

/* The recorded words as argv, in place; returns how many, or 0 for none that can be used. The last is the directory. */
static int split(char *text, char **words)
{
	int n = 0;

	while (*text && n < WORDS_MAX) {
		char *end = strchr(text, '\n');

		if (!end)
			return 0;
		*end = '\0';
		words[n++] = text;
		text = end + 1;
	}
	return *text || n < 3 ? 0 : n;
}

/* As the device was attached, with files named from the same directory. */
static int parse_again(struct record *st, unsigned index, char **words, struct opts *again,
		       struct err *e)
{
	int n = split(st->command_line, words);

	if (!n)
		return err_set(e, ERR_FAILED, ENODATA,
			       "nbd%u: its record does not say how it was attached", index);
	if (chdir(words[n - 1]))
		return err_sys(e, ERR_FAILED, errno,
			       "change to directory %s, where nbd%u was attached", words[n - 1],
			       index);
	words[--n] = NULL;
	/* a line of the nbdtab, or not: what counts is what it was */
	if (opts_parse_entry(n, words, again, e))
		return err_wrap(e, "nbd%u: as it was attached", index);
	if (again->command != OPTS_ATTACH || again->no_supervise)
		return err_set(e, ERR_BUSY, EBUSY,
			       "nbd%u was attached without a supervisor (--command, "
			       "--no-supervise): its connections cannot be replaced",
			       index);
	again->find = false;
	again->index = index;
	return 0;
}

static int adopt(const struct opts *o, const char *operand, struct err *e)
{
	struct launch_request *rq = calloc(1, sizeof(*rq));
	struct opts *again = calloc(1, sizeof(*again));
	struct record *st = malloc(sizeof(*st));
	char **words = calloc(WORDS_MAX + 1, sizeof(*words));
	char recorded[sizeof(st->command_line)];
	struct log logger;
	unsigned index;
	int ret;

	(void)o;

	if (rq)
		rq->log_fd = -1;
	if (!rq || !again || !st || !words) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = opts_device(operand, &index, e);
	if (!ret && record_read(NBD_ATTACH_STATEDIR, index, st, e))
		ret = e->code == ENOENT ? err_set(e, ERR_ABSENT, ENODEV,
						  "nbd%u is not attached by nbd-attach", index) :
					  -e->code;
	if (ret)
		goto out;
	memcpy(recorded, st->command_line, sizeof(recorded));
	ret = parse_again(st, index, words, again, e);
	if (!ret)
		ret = cmd_worker_request(again, rq, &logger, e);
	if (ret)
		goto out;
	memcpy(rq->attach.command_line, recorded, sizeof(recorded));
	ret = launch_takeover(rq, e);
out:
	cmd_forget_worker(rq);
	free(again);
	free(st);
	free(words);
	return ret;
}

int cmd_adopt(const struct opts *o, struct err *e)
{
	return cmd_each(o, adopt, e);
}
