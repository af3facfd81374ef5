/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * A supervisor that does nothing by itself. It holds the connections of one device, and does with
 * them and with the kernel what a script tells it, one command a line. Each is answered by one
 * line: "ok" with a result, or "error" with a text. Ends with its input.
 *
 *   connect PORT N T IO_MS PEER   attaches nbd0 by N connections to 127.0.0.1, request timeout T s,
 *                                 queue/io_timeout (0: as it is), time limit of silent peers in s
 *   open PORT          makes a spare connection; drop closes it
 *   offer              offers the spare to the kernel: "taken", "dropped", with T 0 "unknown"
 *   replace I MS       offers it every 20 ms until it is taken: it is connection I then; number of
 *                      offers
 *   blind I            offers it four times within half a second without a look
 *   race N PORT MS     N times: cuts connection 0 and offers another at once, until it is taken
 *                      (within MS); number of first offers that were dropped
 *   dead               for each connection 1 or 0
 *   cut I              resets connection I
 *   event MS           waits for a notice: "dead INDEX", "lost" or "none"
 *   room BYTES         for notices
 *   probe BACKEND      "-" for the device's own
 *   resize BYTES
 *   disconnect MS      waits so long for it: "over" or "hangs"
 *   await MS           for a command that hangs
 *   ktls               cuts and closes a socket with kernel TLS on it and data in it: "reset" or
 *                      "end" is what its peer sees then, and "early" when it saw that before the
 *                      close
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "kernel/blocking_thread.h"
#include "net/connect.h"
#include "kernel/nbdevent.h"
#include "kernel/nbdnl.h"
#include "kernel/devnode.h"
#include "policy/plan.h"
#include "net/sockopt.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

enum { INDEX = 0, OPEN_MS = 5000, CALL_MS = 20000, RETRY_MS = 20, BUSY_MS = 3000 };

struct device {
	struct nbdnl *nl;
	struct blocking_thread *k;
	int events, sysfd, devfd;
	struct plan plan;
	unsigned peer_timeout;
	int fds[PLAN_CONNECTIONS_MAX];
	unsigned count;
	int spare;
};

/* --- kernel commands, in the thread ----------------------------------------------------------- */

enum verb { OFFER, RESIZE, PROBE, DISCONNECT };

struct command {
	struct nbdnl *nl;
	enum verb verb;
	int fd;
	uint64_t size;
	char backend[PLAN_BACKEND_MAX + 1];
	int ret;
	struct err err;
};

static void run(void *block)
{
	struct command *c = block;

	switch (c->verb) {
	case OFFER:
		c->ret = nbdnl_offer(c->nl, INDEX, c->backend, c->fd, &c->err);
		break;
	case RESIZE:
		c->ret = nbdnl_resize(c->nl, INDEX, c->backend, c->size, &c->err);
		break;
	case PROBE:
		c->ret = nbdnl_probe(c->nl, INDEX, c->backend, &c->err);
		break;
	case DISCONNECT:
		c->ret = nbdnl_disconnect(c->nl, INDEX, &c->err);
		break;
	}
}

static int await(struct device *d, int limit_ms, struct err *e)
{
	struct pollfd p = { .fd = blocking_thread_fd(d->k), .events = POLLIN };
	struct command c;
	int ret;

	poll(&p, 1, limit_ms);
	ret = blocking_thread_collect(d->k, &c);
	if (ret == -EAGAIN)
		return err_set(e, ERR_FAILED, ETIMEDOUT, "the kernel hangs");
	*e = c.err;
	return c.ret;
}

static int command(struct device *d, struct command *c, int limit_ms, struct err *e)
{
	int ret;

	c->nl = d->nl;
	if (!c->backend[0])
		memcpy(c->backend, d->plan.backend, sizeof(c->backend));
	ret = blocking_thread_submit(d->k, run, c, sizeof(*c), e);
	return ret ? ret : await(d, limit_ms, e);
}

/* --- connections ------------------------------------------------------------------------------ */

static int dial(const char *port, unsigned count, struct connections *rs, struct err *e)
{
	static struct settings rq;
	const struct connect_attempt a = {
		.goal = NEG_GOAL_GO,
		.timeout_ms = OPEN_MS,
		.multi = { .wanted = count },
		.cancel_fd = -1,
	};
	struct connector *c;
	int ret;

	settings_init(&rq);
	rq.connect_timeout_ms = OPEN_MS;
	rq.peer_timeout_s = 0;
	ret = settings_add_host(&rq, "127.0.0.1", port, false, "", e);
	if (!ret)
		ret = connect_prepare(&c, &rq, 0, e);
	if (ret)
		return ret;
	ret = connect_run(c, &a, NULL, NULL, rs, e);
	connect_free(c);
	return ret;
}

/* What the supervisor does to each socket before the kernel gets it. */
static int prepare(const struct device *d, int fd, struct err *e)
{
	int ret = sockopt_set_peer_timeout(fd, d->peer_timeout, e);

	if (!ret)
		ret = sockopt_set_send_room(fd, SOCKOPT_SEND_ROOM, e);
	return ret < 0 ? ret : 0;
}

static int open_spare(struct device *d, const char *port, struct err *e)
{
	struct connections rs;
	int ret = dial(port, 1, &rs, e);

	if (ret)
		return ret;
	d->spare = rs.fds[0];
	return prepare(d, d->spare, e);
}

static bool is_taken(const struct device *d)
{
	return sockopt_send_timeout_ms(d->spare) == (int64_t)d->plan.timeout_s * 1000;
}

static int offer(struct device *d, struct err *e)
{
	struct command c = { .verb = OFFER, .fd = d->spare };

	return command(d, &c, CALL_MS, e);
}

static void take_place(struct device *d, unsigned i)
{
	close(d->fds[i]);
	d->fds[i] = d->spare;
	d->spare = -1;
}

/* Number of offers, -errno. */
static int replace(struct device *d, unsigned i, int limit_ms, struct err *e)
{
	long long deadline = monotonic_ms() + limit_ms;
	int offers = 1, ret;

	for (;; offers++) {
		ret = offer(d, e);
		if (ret)
			return ret;
		if (is_taken(d))
			break;
		if (monotonic_ms() >= deadline)
			return err_set(e, ERR_FAILED, ETIMEDOUT, "%d offers, none was taken",
				       offers);
		poll(NULL, 0, RETRY_MS);
	}
	take_place(d, i);
	return offers;
}

/* --- commands of the script ------------------------------------------------------------------- */

static int do_connect(struct device *d, char **w, struct err *e)
{
	const struct plan_kernel kernel = { .page_size = (uint32_t)sysconf(_SC_PAGESIZE) };
	static struct settings rq;
	struct sysfs_limits l;
	long long deadline;
	struct connections rs;
	uint32_t index;
	int ret;

	d->peer_timeout = (unsigned)atoi(w[4]);
	rq.supervision.none = true;
	rq.timeout_s = (uint32_t)atoi(w[2]);
	rq.dead_timeout_s = PLAN_TIMEOUT_MAX;
	ret = dial(w[0], (unsigned)atoi(w[1]), &rs, e);
	if (ret)
		return ret;
	ret = plan_attach(&rq, rs.count, &rs.export, &kernel, &d->plan, e);
	if (ret)
		return ret;
	strcpy(d->plan.backend, "by hand");
	d->count = rs.count;
	memcpy(d->fds, rs.fds, sizeof(d->fds));
	for (unsigned i = 0; i < d->count && !ret; i++)
		ret = prepare(d, d->fds[i], e);
	if (ret)
		return ret;
	const struct nbdnl_connect c = {
		.plan = &d->plan,
		.index = INDEX,
		.sockets = d->fds,
		.count = d->count,
	};
	for (deadline = monotonic_ms() + BUSY_MS;; poll(NULL, 0, RETRY_MS)) {
		ret = nbdnl_connect(d->nl, &c, &index, e);
		if (ret != -EBUSY || monotonic_ms() >= deadline)
			break;
	}
	if (ret)
		return ret;
	l = (struct sysfs_limits){
		.max_sectors_kb = d->plan.max_sectors_kb,
		.write_back = d->plan.write_back,
		.rotational = d->plan.rotational,
		.io_timeout_ms = (uint32_t)atoi(w[3]),
	};
	ret = sysfs_limits_write(d->sysfd, INDEX, &l, e);
	return ret ? ret : devnode_scan_partitions(d->devfd, INDEX, BUSY_MS, e);
}

/* The first offer is not made in the thread, which would cost the time that matters. */
static int do_race(struct device *d, char **w, struct err *e)
{
	int dropped = 0, ret;

	for (int i = 0; i < atoi(w[0]); i++) {
		ret = open_spare(d, w[1], e);
		if (!ret)
			ret = sockopt_cut(d->fds[0], e);
		if (!ret)
			ret = nbdnl_offer(d->nl, INDEX, d->plan.backend, d->spare, e);
		if (!ret && !is_taken(d)) {
			dropped++;
			ret = replace(d, 0, atoi(w[2]), e);
		} else if (!ret) {
			take_place(d, 0);
		}
		if (ret < 0)
			return err_wrap(e, "round %d", i);
	}
	return dropped;
}

static int do_blind(struct device *d, unsigned i, struct err *e)
{
	static const int pauses_ms[] = { 0, 20, 80, 400 };
	int ret;

	for (size_t n = 0; n < sizeof(pauses_ms) / sizeof(pauses_ms[0]); n++) {
		poll(NULL, 0, pauses_ms[n]);
		ret = offer(d, e);
		if (ret)
			return ret;
	}
	take_place(d, i);
	return 0;
}

static int do_event(struct device *d, int limit_ms, char *result, size_t cap, struct err *e)
{
	struct pollfd p = { .fd = d->events, .events = POLLIN };
	uint32_t index;
	int ret;

	poll(&p, 1, limit_ms);
	ret = nbdevent_read(d->events, &index, e);
	if (ret == NBDEVENT_DEAD)
		snprintf(result, cap, "dead %" PRIu32, index);
	else
		snprintf(result, cap, ret == NBDEVENT_LOST ? "lost" : "none");
	return ret < 0 ? ret : 0;
}

/* Both ends of a connection, of which the first one's sender encrypts in the kernel. */
static int ktls_pair(int fd[2], struct err *e)
{
	struct tls12_crypto_info_aes_gcm_128 key = {
		.info = { .version = TLS_1_3_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128 },
	};
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(a);

	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&a, &len) ||
	    connect(fd[0], (struct sockaddr *)&a, sizeof(a)))
		return err_sys(e, ERR_FAILED, errno, "loopback");
	fd[1] = accept(listener, NULL, NULL);
	close(listener);
	if (setsockopt(fd[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) ||
	    setsockopt(fd[0], SOL_TLS, TLS_TX, &key, sizeof(key)))
		return err_sys(e, ERR_FAILED, errno, "kernel TLS");
	return 0;
}

static int do_ktls(char *result, size_t cap, struct err *e)
{
	struct pollfd p = { .events = SOCKOPT_DEAD };
	int fd[2], ret = ktls_pair(fd, e);
	char buf[65536];
	ssize_t n;

	if (ret)
		return ret;
	memset(buf, 0, sizeof(buf));
	while (send(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	ret = sockopt_cut(fd[0], e);
	if (ret)
		return ret;
	if (!sockopt_is_dead(fd[0]))
		return err_set(e, ERR_FAILED, EIO, "it lives");
	p.fd = fd[1];
	ret = poll(&p, 1, 200);
	close(fd[0]);
	if (poll(&p, 1, OPEN_MS) != 1)
		return err_set(e, ERR_FAILED, EIO, "its peer notices nothing");
	while ((n = read(fd[1], buf, sizeof(buf))) > 0)
		;
	snprintf(result, cap, "%s%s", n < 0 ? "reset" : "end", ret ? " early" : "");
	close(fd[1]);
	return 0;
}

/* Words beyond the first are "0" where the line has no more. */
static int perform(struct device *d, const char *verb, char **w, char *result, size_t cap,
		   struct err *e)
{
	struct command c = { .fd = -1 };
	int ret = 0;

	if (!strcmp(verb, "connect"))
		return do_connect(d, w, e);
	if (!strcmp(verb, "open"))
		return open_spare(d, w[0], e);
	if (!strcmp(verb, "ktls"))
		return do_ktls(result, cap, e);
	if (!strcmp(verb, "event"))
		return do_event(d, atoi(w[0]), result, cap, e);
	if (!strcmp(verb, "blind"))
		return do_blind(d, (unsigned)atoi(w[0]), e);
	if (!strcmp(verb, "cut"))
		return sockopt_cut(d->fds[atoi(w[0])], e);
	if (!strcmp(verb, "await"))
		return await(d, atoi(w[0]), e);
	if (!strcmp(verb, "drop")) {
		close(d->spare);
		d->spare = -1;
	} else if (!strcmp(verb, "offer")) {
		ret = offer(d, e);
		snprintf(result, cap,
			 !d->plan.timeout_s ? "unknown" :
			 is_taken(d)        ? "taken" :
					      "dropped");
	} else if (!strcmp(verb, "replace") || !strcmp(verb, "race")) {
		ret = !strcmp(verb, "race") ? do_race(d, w, e) :
					      replace(d, (unsigned)atoi(w[0]), atoi(w[1]), e);
		snprintf(result, cap, "%d", ret);
	} else if (!strcmp(verb, "dead")) {
		for (unsigned i = 0; i < d->count && i + 1 < cap; i++)
			strcat(result, sockopt_is_dead(d->fds[i]) ? "1" : "0");
	} else if (!strcmp(verb, "room")) {
		int room = atoi(w[0]);

		if (setsockopt(d->events, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)))
			ret = err_sys(e, ERR_FAILED, errno, "SO_RCVBUF");
	} else if (!strcmp(verb, "probe")) {
		c.verb = PROBE;
		if (strcmp(w[0], "-"))
			snprintf(c.backend, sizeof(c.backend), "%s", w[0]);
		ret = command(d, &c, CALL_MS, e);
	} else if (!strcmp(verb, "resize")) {
		c.verb = RESIZE;
		c.size = strtoull(w[0], NULL, 10);
		ret = command(d, &c, CALL_MS, e);
	} else if (!strcmp(verb, "disconnect")) {
		c.verb = DISCONNECT;
		ret = command(d, &c, atoi(w[0]), e);
		if (!ret || ret == -ETIMEDOUT) {
			snprintf(result, cap, ret ? "hangs" : "over");
			ret = 0;
		}
	} else {
		ret = err_set(e, ERR_USAGE, EINVAL, "no command: %s", verb);
	}
	return ret < 0 ? ret : 0;
}

static int set_up(struct device *d, struct err *e)
{
	int ret = nbdnl_open(&d->nl, e);

	if (!ret)
		ret = blocking_thread_open(&d->k, e);
	if (!ret)
		ret = d->events = nbdevent_open(e);
	if (ret >= 0)
		ret = d->sysfd = sysfs_open("/sys", e);
	if (ret >= 0)
		ret = d->devfd = devnode_open_directory("/dev", e);
	return ret;
}

int main(void)
{
	enum { WORDS = 6 };
	static struct device d = { .spare = -1 };
	char line[512], result[128], *rest, *verb, *w[WORDS];
	static char none[] = "0";
	struct err e = { 0 };

	if (set_up(&d, &e) < 0) {
		printf("error %s\n", e.text);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	while (fgets(line, sizeof(line), stdin)) {
		verb = strtok_r(line, " \n", &rest);
		for (int i = 0; i < WORDS; i++) {
			w[i] = strtok_r(NULL, " \n", &rest);
			if (!w[i])
				w[i] = none;
		}
		result[0] = '\0';
		if (verb && perform(&d, verb, w, result, sizeof(result), &e) >= 0)
			printf("ok%s%s\n", result[0] ? " " : "", result);
		else
			printf("error %s\n", e.text);
	}
	return 0;
}
