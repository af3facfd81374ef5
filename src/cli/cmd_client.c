/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "cli/nbd_client.h"
#include "base/text.h"

/* Exit statuses of nbd-client. NOT_KNOWN is for -check only. */
enum { DONE = 0, FAILED = 1, NOT_KNOWN = 2 };

static void print_help(FILE *f)
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

static int list_exports(struct opts *o, struct err *e)
{
	struct connect_attempt a = {
		.goal = NEG_GOAL_LIST,
		.timeout_ms = o->settings.connect_timeout_ms,
		.cancel_fd = -1,
	};
	struct connections *rs = malloc(sizeof(*rs));
	struct connector *l = NULL;
	bool failed = false;
	int ret;

	ret = rs ? cmd_prepare_settings(&o->settings, e) : err_sys(e, ERR_FAILED, ENOMEM, "begin");
	if (!ret)
		ret = connect_prepare(&l, &o->settings, 0, e);
	if (!ret) {
		/* Scripts expect a first line, and cut it off. */
		printf("Negotiation: ..\n");
		ret = connect_run(l, &a, list_item, &failed, rs, e);
	}
	if (!ret && failed)
		ret = err_sys(e, ERR_FAILED, ENOMEM, "list exports");
	connect_free(l);
	free(rs);
	return ret;
}

/* "nbd0p1" stands for "nbd0". A device of another driver is not attached. */
static int check_operand(struct opts *o, struct err *e)
{
	const char *device = o->devices[0], *slash = strrchr(device, '/');
	char name[32];
	int ret;

	snprintf(name, sizeof(name), "%s", slash ? slash + 1 : device);
	name[strcspn(name, "p")] = '\0';
	if (text_nbd_index(name, &o->index))
		return FAILED;
	ret = cmd_check(o, e);
	return !ret ? DONE : ret == -ENODEV ? FAILED : NOT_KNOWN;
}

/* Returns the exit status. */
static int run_client_command(struct opts *o, struct err *e)
{
	switch (o->command) {
	case OPTS_CHECK:
		return check_operand(o, e);
	case OPTS_HELP:
		print_help(stderr);
		return DONE;
	case OPTS_VERSION:
		printf("This is nbd-client, from nbd-attach %s\n", PACKAGE_VERSION);
		return DONE;
	case OPTS_EXPORTS:
		return list_exports(o, e) ? FAILED : DONE;
	case OPTS_DETACH:
		/* A device that is not attached is as good as detached. */
		return cmd_detach(o, e) && e->kind != ERR_ABSENT ? FAILED : DONE;
	case OPTS_TAB:
		return cmd_tab(o, e) ? FAILED : DONE;
	default:
		return cmd_attach(o, e) ? FAILED : DONE;
	}
}

int cmd_client(int argc, char *argv[], struct err *e)
{
	struct opts o;
	bool old_style;

	if (nbd_client_parse(argc, argv, &o, &old_style, e))
		return FAILED;
	if (old_style)
		fprintf(stderr,
			"nbd-client: bs= and timeout= are deprecated: -block-size and -timeout\n");
	if (o.client == OPTS_CLIENT_IOCTL)
		fprintf(stderr,
			"nbd-client: -nonetlink: the kernel is told over netlink all the same\n");
	return run_client_command(&o, e);
}
