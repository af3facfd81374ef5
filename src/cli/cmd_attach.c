/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "kernel/sysfs.h"
#include "daemon/launch.h"

static void print_notes(const struct attach_result *r)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (r->outcome != ATTACH_DONE)
		fprintf(stderr, "nbd-attach: /dev/nbd%u is attached to this export already\n",
			r->index);
	if (r->made_read_only)
		fprintf(stderr, "nbd-attach: the export is read-only, and so is /dev/nbd%u\n",
			r->index);
	if (r->note[0])
		fprintf(stderr, "nbd-attach: /dev/nbd%u has %u connection%s: %s\n", r->index,
			r->connections, r->connections == 1 ? "" : "s", r->note);
	/*
	 * The block layer has one hardware queue for each processor at most, and each has a
	 * connection.
	 */
	if (r->connections > 1 && cpus > 0 && r->connections > (unsigned long)cpus)
		fprintf(stderr,
			"nbd-attach: there are fewer processors (%ld) than connections: the kernel "
			"uses the others only when one is lost\n",
			cpus);
}

/* One write is one line. The journal and syslog may wait for the device themselves. */
static void log_kmsg(void *ctx, enum log_level level, const char *text)
{
	const struct launch_request *rq = ctx;
	char line[1024 + 64];
	int n = snprintf(line, sizeof(line), "<%d>nbd-attach[%d]: %s\n", LOG_DAEMON | (int)level,
			 (int)getpid(), text);

	if (n > 0 &&
	    write(rq->log_fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
		n = 0; /* nowhere is left to report it */
}

/* initrds of systemd and dracut have this file. initramfs-tools passes --keep-at-shutdown. */
static bool in_initramfs(void)
{
	return !access("/etc/initrd-release", F_OK);
}

int cmd_begin_launch(struct launch_request *rq, const struct settings *s, struct log *logger,
		     struct err *e)
{
	rq->deaf = s->supervision.keep || (s->supervision.root && in_initramfs());
	rq->attach.settings = s;
	/* systemd spares processes of root only. */
	rq->attach.negotiator.user = rq->deaf ? "root" : NULL;
	/* glibc keeps the pointer to argv[0]. */
	rq->arg0 = rq->deaf ? program_invocation_name : NULL;
	rq->logger = &cmd_logger;
	rq->log_fd = -1;
	if (!settings_is_vital(s))
		return 0;
	rq->log_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (rq->log_fd < 0)
		return err_sys(e, ERR_FAILED, errno, "open /dev/kmsg");
	*logger = (struct log){ .line = log_kmsg, .ctx = rq };
	rq->logger = logger;
	return 0;
}

void cmd_end_launch(struct launch_request *rq)
{
	if (rq->log_fd >= 0)
		close(rq->log_fd);
}

/* Prints which device it is. Non-zero: standard output has failed. */
static int print_device(const struct opts *o, unsigned index)
{
	struct sysfs_device d = { 0 };
	struct err ignored;
	int sysfd;

	if (o->client) {
		sysfd = sysfs_open("/sys", &ignored);
		if (sysfd >= 0 && !sysfs_device(sysfd, index, &d, &ignored))
			printf("Negotiation: ..size = %lluMB\n",
			       (unsigned long long)(d.size >> 20));
		if (sysfd >= 0)
			close(sysfd);
	}
	if (o->client == OPTS_CLIENT_NETLINK)
		printf("Connected /dev/nbd%u\n", index);
	else if (o->client)
		printf("bs=%u, sz=%llu bytes\n", d.block_size, (unsigned long long)d.size);
	else if (o->show)
		printf("/dev/nbd%u\n", index);
	return fflush(stdout);
}

static int report_attached(const void *ctx, const struct attach_result *r, struct err *e)
{
	print_notes(r);
	/* The caller would not know which device to use, or to detach. */
	return print_device(ctx, r->index) ? err_sys(e, ERR_FAILED, errno, "write the output") : 0;
}

/* The journal of a service manager reads the level from a prefix (sd-daemon(3)). */
static void log_here(void *ctx, enum log_level level, const char *text)
{
	char prefix[8] = "";

	if (ctx)
		snprintf(prefix, sizeof(prefix), "<%d>", (int)level);
	fprintf(stderr, "%snbd-attach: %s\n", prefix, text);
}

static int attach_in_foreground(struct launch_request *rq, struct err *e)
{
	struct log here = { .line = log_here, .ctx = getenv("JOURNAL_STREAM") };
	struct notify n;
	int ret = notify_open(&n, getenv("NOTIFY_SOCKET"), getenv("WATCHDOG_USEC"),
			      getenv("WATCHDOG_PID"), getpid(), e);

	if (ret)
		return ret;
	notify_take_stored(&n, NOTIFY_STORED_FIRST, getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"),
			   getenv("LISTEN_PID"), getpid());
	if (rq->log_fd < 0)
		rq->logger = &here;
	rq->notify = &n;
	ret = launch_stay(rq, e);
	notify_close(&n);
	return ret;
}

int cmd_attach_settings(const struct opts *o, struct settings *s, struct err *e)
{
	struct launch_request rq = {
		.attach = { .find = o->find, .index = o->index },
		.attached = report_attached,
		.ctx = o,
	};
	struct log logger;
	int ret = cmd_prepare_settings(s, e);

	if (ret)
		return ret;
	ret = cmd_begin_launch(&rq, s, &logger, e);
	if (!ret)
		ret = o->foreground ? attach_in_foreground(&rq, e) : launch_attach(&rq, e);
	cmd_end_launch(&rq);
	return ret;
}

int cmd_attach(struct opts *o, struct err *e)
{
	return cmd_attach_settings(o, &o->settings, e);
}
