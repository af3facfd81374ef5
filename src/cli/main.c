/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
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

/* nbd-attach(8), "EXIT STATUS". A failed --check is 1, as with nbd-client. */
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

/* A socket that got a closed descriptor 0 to 2 would be written to as standard error. */
static void open_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static int (*const commands[])(struct opts *o, struct err *e) = {
	[OPTS_ATTACH] = cmd_attach,   [OPTS_TAB] = cmd_tab,        [OPTS_ALL] = cmd_all,
	[OPTS_DETACH] = cmd_detach,   [OPTS_LIST] = cmd_list,      [OPTS_CHECK] = cmd_check,
	[OPTS_EXPORTS] = cmd_exports, [OPTS_INFO] = cmd_info,      [OPTS_MAP] = cmd_map,
	[OPTS_PAUSE] = cmd_control,   [OPTS_RESUME] = cmd_control, [OPTS_RESCAN] = cmd_control,
	[OPTS_ADOPT] = cmd_adopt,
};

static int run_client(int argc, char *argv[])
{
	struct err e = { 0 };
	int status = cmd_client(argc, argv, &e);

	if (!status && (fflush(stdout) || ferror(stdout)))
		status = 1;
	if (status && e.text[0])
		fprintf(stderr, "nbd-client: %s\n", e.text);
	return status;
}

static int run_generator(int argc, char *argv[])
{
	struct err e = { 0 };

	return cmd_generator(argc, argv, &e) ? status_of(&e) : 0;
}

static void print_version(void)
{
	printf("nbd-attach %s\n", PACKAGE_VERSION);
	if (NBD_ATTACH_URL[0])
		printf("Home page: <%s>\n", NBD_ATTACH_URL);
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
		return run_client(argc, argv);
	if (cmd_is_generator(argv[0]))
		return run_generator(argc, argv);
	ret = opts_parse(argc, argv, &o, &e);
	if (!ret && o.command == OPTS_HELP)
		opts_help(stdout);
	else if (!ret && o.command == OPTS_VERSION)
		print_version();
	else if (!ret)
		ret = commands[o.command](&o, &e);
	if (!ret && (fflush(stdout) || ferror(stdout)))
		ret = err_sys(&e, ERR_FAILED, errno ? errno : EIO, "write the output");
	if (!ret)
		return 0;
	if (e.text[0])
		fprintf(stderr, "nbd-attach: %s\n", e.text);
	return status_of(&e);
}
