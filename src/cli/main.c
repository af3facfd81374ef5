/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd-attach: attach a network block device export to the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "config.h"
#include "cli/nbd_client.h"

/* nbd-attach(8), "EXIT STATUS"; a failed --check is 1, as nbd-client's */
static const struct {
	enum err_kind kind;
	int status;
} statuses[] = {
	{ ERR_NONE, 0 },    { ERR_FAILED, 1 },   { ERR_USAGE, 2 },  { ERR_UNREACHABLE, 3 },
	{ ERR_REFUSED, 4 }, { ERR_PROTOCOL, 5 }, { ERR_TLS, 6 },    { ERR_BUSY, 7 },
	{ ERR_ABSENT, 8 },  { ERR_KERNEL, 9 },   { ERR_MULTI, 10 },
};

static int status_of(const struct err *e)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].kind == e->kind)
			return statuses[i].status;
	return 1;
}

/* Descriptors 0 to 2 that were closed would be given to sockets and then be written to as stderr. */
static void open_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static int run(struct opts *o, struct err *e)
{
	switch (o->command) {
	case OPTS_ATTACH:
		return cmd_attach(o, e);
	case OPTS_TAB:
		return cmd_tab(o, e);
	case OPTS_ALL:
		return cmd_all(o, e);
	case OPTS_DETACH:
		return cmd_detach(o, e);
	case OPTS_LIST:
		return cmd_list(o, e);
	case OPTS_CHECK:
		return cmd_check(o, e);
	case OPTS_EXPORTS:
		return cmd_exports(o, e);
	case OPTS_INFO:
		return cmd_info(o, e);
	case OPTS_PAUSE:
	case OPTS_RESUME:
	case OPTS_RESCAN:
		return cmd_control(o, e);
	case OPTS_ADOPT:
		return cmd_adopt(o, e);
	case OPTS_MAP:
		return cmd_map(o, e);
	case OPTS_HELP:
		opts_help(stdout);
		return 0;
	default:
		printf("nbd-attach %s\n", PACKAGE_VERSION);
		return 0;
	}
}

static int client(int argc, char *argv[])
{
	struct err e = { 0 };
	int status = cmd_client(argc, argv, &e);

	if (!status && (fflush(stdout) || ferror(stdout)))
		status = 1;
	if (status && e.text[0])
		fprintf(stderr, "nbd-client: %s\n", e.text);
	return status;
}

static int generator(int argc, char *argv[])
{
	struct err e = { 0 };

	return cmd_generator(argc, argv, &e) ? status_of(&e) : 0;
}

int main(int argc, char *argv[])
{
	struct err e = { 0 };
	struct opts o = { 0 };
	int ret;

	open_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	setlocale(LC_CTYPE, "");
	if (nbd_client_is_meant(argv[0]))
		return client(argc, argv);
	if (cmd_is_generator(argv[0]))
		return generator(argc, argv);
	ret = opts_parse(argc, argv, &o, &e);
	if (!ret)
		ret = run(&o, &e);
	if (!ret && (fflush(stdout) || ferror(stdout)))
		ret = err_sys(&e, ERR_FAILED, errno ? errno : EIO, "write the output");
	if (!ret)
		return 0;
	if (e.text[0])
		fprintf(stderr, "nbd-attach: %s\n", e.text);
	return status_of(&e);
}
