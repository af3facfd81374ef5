/* SPDX-License-Identifier: GPL-2.0-or-later */
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

static void tell(const struct attach_result *r)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (r->already)
		fprintf(stderr, "nbd-attach: /dev/nbd%u is attached to this export already\n",
			r->index);
	if (r->made_read_only)
		fprintf(stderr, "nbd-attach: the export is read-only, and so is /dev/nbd%u\n",
			r->index);
	if (r->note[0])
		fprintf(stderr, "nbd-attach: /dev/nbd%u has %u connection%s: %s\n", r->index,
			r->connections, r->connections == 1 ? "" : "s", r->note);
	/* The block layer makes one hardware queue for each processor at most, and each has one connection */
	if (!r->already && r->connections > 1 && cpus > 0 && r->connections > (unsigned long)cpus)
		fprintf(stderr,
			"nbd-attach: there are fewer processors (%ld) than connections: the kernel "
			"uses the others only when one is lost\n",
			cpus);
}

/* Each server with the same options. */
static int fill_servers(const struct opts *o, struct attach_request *rq, struct err *e)
{
	int ret;

	rq->server_count = o->other_count + 1;
	rq->servers = calloc(rq->server_count, sizeof(*rq->servers));
	if (!rq->servers)
		return err_sys(e, ERR_FAILED, ENOMEM, "begin");
	ret = cmd_link_request(o, NEG_GOAL_GO, &rq->servers[0], e);
	for (unsigned i = 1; !ret && i < rq->server_count; i++) {
		rq->servers[i] = rq->servers[0];
		rq->servers[i].where = o->others[i - 1];
		ret = cmd_make_absolute(&rq->servers[i], e);
	}
	return ret;
}

/* For --adopt; "" where they are not to be had in that form. */
static void record_words(const struct opts *o, char *buf, size_t cap)
{
	size_t used = 0;

	buf[0] = '\0';
	for (int i = 0; i < o->word_count; i++) {
		size_t len = strlen(o->words[i]);

		if (strchr(o->words[i], '\n') || len + 2 > cap - used) {
			buf[0] = '\0';
			return;
		}
		memcpy(buf + used, o->words[i], len);
		used += len;
		buf[used++] = '\n';
		buf[used] = '\0';
	}
	if (!getcwd(buf + used, cap - used - 1))
		buf[0] = '\0';
	else
		strcat(buf + used, "\n");
}

/* One write is one line. Not the journal's, or syslog's: they may wait for the device themselves. */
static void log_kmsg(void *ctx, enum log_level level, const char *text)
{
	const struct launch_request *rq = ctx;
	char line[1024 + 64];
	int n = snprintf(line, sizeof(line), "<%d>nbd-attach[%d]: %s\n", LOG_DAEMON | (int)level,
			 (int)getpid(), text);

	if (n > 0 &&
	    write(rq->log_fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
		n = 0; /* there is nobody left to be told */
}

/* systemd and dracut put this file into their own; initramfs-tools has none, and passes an option. */
static bool in_initramfs(void)
{
	return !access("/etc/initrd-release", F_OK);
}

static int fill_care(const struct opts *o, struct launch_request *rq, struct log *logger,
		     struct err *e)
{
	bool vital = o->root || o->swap, kept = o->keep || (o->root && in_initramfs());

	rq->care = (struct supervise_options){
		.peer_timeout_s = o->peer_timeout_s,
		.reconnect_timeout_s = o->reconnect_timeout_s,
		.fence_delay_s = o->fence_delay_s,
		.attempt_timeout_ms = o->connect_timeout_ms,
		.tls_renew = o->tls_renew,
		.vital = vital,
		.deaf = kept,
	};
	rq->attach.negotiator = (struct negotiator_params){
		.keep_addresses = vital,
		/* systemd spares those of root's only */
		.user = kept ? "root" : NULL,
	};
	rq->logger = &cmd_logger;
	rq->log_fd = -1;
	/* glibc keeps the pointer to argv[0]; our words may have been put together from elsewhere */
	rq->arg0 = kept ? program_invocation_name : NULL;
	if (!vital)
		return 0;
	rq->log_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (rq->log_fd < 0)
		return err_sys(e, ERR_FAILED, errno, "open /dev/kmsg");
	*logger = (struct log){ .line = log_kmsg, .ctx = rq };
	rq->logger = logger;
	return 0;
}

int cmd_worker_request(const struct opts *o, struct launch_request *rq, struct log *logger,
		       struct err *e)
{
	struct attach_request *a = &rq->attach;
	int ret;

	a->find = o->find;
	a->index = o->index;
	a->supervise = !o->no_supervise;
	a->plan.read_only = o->read_only;
	a->plan.block_size = o->block_size;
	a->plan.timeout_s = o->timeout_s;
	a->plan.timeout_given = o->timeout_given;
	a->plan.dead_timeout_s = o->dead_timeout_s;
	record_words(o, a->command_line, sizeof(a->command_line));
	ret = fill_care(o, rq, logger, e);
	return ret ? ret : fill_servers(o, a, e);
}

void cmd_forget_worker(struct launch_request *rq)
{
	if (!rq)
		return;
	if (rq->log_fd >= 0)
		close(rq->log_fd);
	free(rq->attach.servers);
	free(rq);
}

/* Which device it is, for whoever asked. Non-zero when nobody has got it. */
static int announce(const struct opts *o, unsigned index)
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

static int attached(const void *ctx, const struct attach_result *r, struct err *e)
{
	tell(r);
	/* Nobody would know which device it is. */
	return announce(ctx, r->index) ? err_sys(e, ERR_FAILED, errno, "write the output") : 0;
}

/* The service manager's journal wants the level in front (sd-daemon(3)). */
static void log_here(void *ctx, enum log_level level, const char *text)
{
	char prefix[8] = "";

	if (ctx)
		snprintf(prefix, sizeof(prefix), "<%d>", (int)level);
	fprintf(stderr, "%snbd-attach: %s\n", prefix, text);
}

static int stay(struct launch_request *rq, struct err *e)
{
	struct log here = { .line = log_here, .ctx = getenv("JOURNAL_STREAM") };
	struct notify n;
	int ret = notify_open(&n, getenv("NOTIFY_SOCKET"), getenv("WATCHDOG_USEC"),
			      getenv("WATCHDOG_PID"), getpid(), e);

	if (ret)
		return ret;
	if (rq->log_fd < 0)
		rq->logger = &here;
	rq->notify = &n;
	ret = launch_stay(rq, e);
	notify_close(&n);
	return ret;
}

int cmd_attach(const struct opts *o, struct err *e)
{
	struct launch_request *rq = calloc(1, sizeof(*rq));
	struct log logger;
	int ret;

	if (!rq)
		return err_sys(e, ERR_FAILED, ENOMEM, "begin");
	ret = cmd_worker_request(o, rq, &logger, e);
	rq->attached = attached;
	rq->ctx = o;
	if (!ret)
		ret = o->foreground ? stay(rq, e) : launch_attach(rq, e);
	cmd_forget_worker(rq);
	return ret;
}
