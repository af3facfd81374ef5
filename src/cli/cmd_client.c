/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "cli/nbd_client.h"
#include "base/text.h"

/* nbd-client knows no others, and the last one for -check only */
enum { DONE = 0, FAILED = 1, NOT_KNOWN = 2 };

static void help(FILE *f)
{
	fprintf(f,
		"nbd-client, as nbd-attach %s has it\n\n"
		"Usage: nbd-client [-name|-N NAME] HOST [PORT] DEVICE [OPTION]...\n"
		"       nbd-client -unix|-u [-name|-N NAME] PATH DEVICE [OPTION]...\n"
		"       nbd-client DEVICE                   as the nbdtab has it\n"
		"       nbd-client -disconnect|-d DEVICE\n"
		"       nbd-client -check|-c DEVICE\n"
		"       nbd-client -list|-l HOST [PORT]\n"
		"       nbd-client -help|-h | -version|-V\n\n"
		"Options: -block-size|-b BYTES, -connections|-C N, -timeout|-t SECONDS, -readonly|-R,\n"
		"       -persist|-p, -swap|-s, -systemd-mark|-m, -nofork|-n, -nonetlink|-L, -enable-tls|-x,\n"
		"       -cacertfile|-A FILE, -certfile|-F FILE, -keyfile|-K FILE, -tlshostname|-H NAME\n"
		"See nbd-attach(8), \"NBD-CLIENT\".\n",
		PACKAGE_VERSION);
}

static void list_item(void *ctx, const struct neg_item *item)
{
	size_t cap = 4 * (strlen(item->name) + strlen(item->description)) + 8;
	char *shown = malloc(cap);
	bool *failed = ctx;

	if (!shown) {
		*failed = true;
		return;
	}
	text_escape(shown, cap, item->name, strlen(item->name));
	printf("%s", shown);
	text_escape(shown, cap, item->description, strlen(item->description));
	printf("%s%s\n", shown[0] ? ": " : "", shown);
	free(shown);
}

static int list(const struct opts *o, struct err *e)
{
	struct connect_attempt a = { .goal = NEG_GOAL_LIST, .cancel_fd = -1 };
	struct target *rq = malloc(sizeof(*rq));
	struct connections *rs = malloc(sizeof(*rs));
	struct connector *l = NULL;
	bool failed = false;
	int ret;

	ret = rq && rs ? cmd_link_request(o, a.goal, rq, e) :
			 err_sys(e, ERR_FAILED, ENOMEM, "begin");
	if (!ret)
		ret = connect_prepare(&l, rq, e);
	if (!ret) {
		a.timeout_ms = rq->timeout_ms;
		/* its first line, which scripts cut off */
		printf("Negotiation: ..\n");
		ret = connect_run(l, &a, list_item, &failed, rs, e);
	}
	if (!ret && failed)
		ret = err_sys(e, ERR_FAILED, ENOMEM, "list exports");
	connect_free(l);
	free(rq);
	free(rs);
	return ret;
}

/* "nbd0p1" is as good as "nbd0", and what is no nbd device is not attached. */
static int check(const char *device, struct err *e)
{
	const char *slash = strrchr(device, '/');
	struct opts o = { .command = OPTS_CHECK };
	char name[32];
	int ret;

	snprintf(name, sizeof(name), "%s", slash ? slash + 1 : device);
	name[strcspn(name, "p")] = '\0';
	if (text_nbd_index(name, &o.index))
		return FAILED;
	ret = cmd_check(&o, e);
	return !ret ? DONE : ret == -ENODEV ? FAILED : NOT_KNOWN;
}

static int run(const struct personality *p, struct opts *o, struct err *e)
{
	int ret;

	switch (p->task) {
	case NBD_CLIENT_LIST:
		return list(o, e);
	case NBD_CLIENT_DETACH:
		ret = cmd_detach(o, e);
		/* that is what was wanted */
		return e->kind == ERR_ABSENT ? 0 : ret;
	case NBD_CLIENT_TAB:
		o->persist_counts = !p->supervised;
		return cmd_tab(o, e);
	default:
		return cmd_attach(o, e);
	}
}

int cmd_client(int argc, char *argv[], struct err *e)
{
	struct personality *p = malloc(sizeof(*p));
	struct opts *o = calloc(1, sizeof(*o));
	char *words[NBD_CLIENT_WORDS_MAX + 1]; /* o points into it */
	int status = FAILED;

	if (!p || !o) {
		err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	if (nbd_client_parse(argc, argv, p, e))
		goto out;
	switch (p->task) {
	case NBD_CLIENT_CHECK:
		status = check(p->device, e);
		goto out;
	case NBD_CLIENT_HELP:
		help(stderr);
		status = DONE;
		goto out;
	case NBD_CLIENT_VERSION:
		printf("This is nbd-client, from nbd-attach %s\n", PACKAGE_VERSION);
		status = DONE;
		goto out;
	default:
		break;
	}
	if (p->old_style)
		fprintf(stderr,
			"nbd-client: bs= and timeout= are deprecated: -block-size and -timeout\n");
	if (p->ioctl_words)
		fprintf(stderr,
			"nbd-client: -nonetlink: the kernel is told over netlink all the same\n");
	memcpy(words, p->words, sizeof(words));
	if (opts_parse(p->word_count, words, o, e))
		goto out;
	o->words = p->words;
	o->word_count = p->word_count;
	o->client = p->ioctl_words ? OPTS_CLIENT_IOCTL : OPTS_CLIENT_NETLINK;
	if (!run(p, o, e))
		status = DONE;
out:
	free(o);
	free(p);
	return status;
}
