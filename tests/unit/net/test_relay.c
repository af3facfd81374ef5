/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* A relay between a plain descriptor, which the test has, and a TLS server, which it plays. */
#include "net/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../tlstalk.h"
#include "../unit.h"

enum { PATIENCE_MS = 20000 };

static struct cert server_cert;

static void setup(void)
{
	cert_make(&server_cert, &(struct cert_spec){ .dns = { "server.example" } });
}

static void teardown(void)
{
	cert_free(&server_cert);
}

struct relayed {
	struct peer p;
	int local; /* plain */
	int fd;    /* our copy of the relay's network end, closed at once */
};

static const char *const versions[] = {
	"NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3",
	"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC", /* one that no kernel has */
};

static void start(struct relayed *k, const char *priority)
{
	struct tls_params params = { .no_verify = true };
	struct peer_spec spec = { .cert = &server_cert, .priority = priority, .tickets = true };
	struct talk t;

	strcpy(params.priority, priority);
	talk_begin(&t, &params, &spec);
	talk_handshake(&t);
	ck_assert_msg(!t.ret && !t.p.result, "%d %d", t.ret, t.p.result);
	memset(k, 0, sizeof(*k));
	k->p = t.p;
	k->local = relay_start(t.t, t.fd, false, &t.e);
	ck_assert_msg(k->local >= 0, "%s", t.e.text);
	fcntl(k->local, F_SETFL, O_NONBLOCK);
	tls_free(t.t);
	tls_creds_free(t.creds);
	close(t.fd);
}

/* The relay ends by itself when its ends do. */
static void finish(struct relayed *k)
{
	int status = -1;

	if (k->local >= 0)
		close(k->local);
	peer_close(&k->p);
	for (int i = 0; i < PATIENCE_MS / 5 && !waitpid(-1, &status, WNOHANG); i++)
		poll(NULL, 0, 5);
	ck_assert_int_eq(status, 0);
}

static unsigned char byte(size_t i, unsigned seed)
{
	return (unsigned char)(i * 31 + (i >> 11) + seed);
}

/* One direction of a conversation. */
struct flow {
	size_t len, sent, got;
	unsigned seed;
	bool paused; /* the receiver does not read */
};

static bool check(struct flow *f, const unsigned char *buf, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != byte(f->got + (size_t)i, f->seed))
			return false;
	f->got += (size_t)n;
	return true;
}

/* Moves some of both; true when anything was moved. */
static bool step(struct relayed *k, struct flow *up, struct flow *down, size_t piece)
{
	unsigned char buf[65536];
	bool moved = false;
	ssize_t n;

	if (up->sent < up->len) {
		size_t want = up->len - up->sent < piece ? up->len - up->sent : piece;

		for (size_t i = 0; i < want; i++)
			buf[i] = byte(up->sent + i, up->seed);
		n = send(k->local, buf, want, MSG_NOSIGNAL);
		ck_assert(n > 0 || errno == EAGAIN);
		up->sent += n > 0 ? (size_t)n : 0;
		moved |= n > 0;
	}
	if (!up->paused && up->got < up->len) {
		n = gnutls_record_recv(k->p.session, buf, sizeof(buf));
		ck_assert(n > 0 || n == GNUTLS_E_AGAIN);
		ck_assert(n < 0 || check(up, buf, n));
		moved |= n > 0;
	}
	if (down->sent < down->len) {
		size_t want = down->len - down->sent < piece ? down->len - down->sent : piece;

		for (size_t i = 0; i < want; i++)
			buf[i] = byte(down->sent + i, down->seed);
		n = gnutls_record_send(k->p.session, buf, want);
		ck_assert(n > 0 || n == GNUTLS_E_AGAIN);
		down->sent += n > 0 ? (size_t)n : 0;
		moved |= n > 0;
	}
	if (!down->paused && down->got < down->len) {
		n = recv(k->local, buf, sizeof(buf), 0);
		ck_assert(n > 0 || errno == EAGAIN);
		ck_assert(n < 0 || check(down, buf, n));
		moved |= n > 0;
	}
	return moved;
}

static bool all_there(const struct flow *f)
{
	return f->got == f->len;
}

static void converse(struct relayed *k, struct flow *up, struct flow *down, size_t piece)
{
	for (int idle = 0; idle < PATIENCE_MS && !(all_there(up) && all_there(down)); idle++) {
		if (step(k, up, down, piece))
			idle = 0;
		else
			poll(NULL, 0, 1);
	}
	ck_assert_uint_eq(up->got, up->len);
	ck_assert_uint_eq(down->got, down->len);
}

static const struct {
	size_t up, down, piece;
} sizes[] = {
	{ 1, 1, 1 },
	{ 28, 4096 + 16, 65536 },
	{ 16384, 16385, 65536 },
	{ 3 << 20, 5 << 20, 16384 },
	{ 40000, 40000, 7 },
};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

START_TEST(both_ways)
{
	size_t i = (size_t)_i % SIZES;
	struct flow up = { .len = sizes[i].up, .seed = 3 };
	struct flow down = { .len = sizes[i].down, .seed = 5 };
	struct relayed k;

	start(&k, versions[(size_t)_i / SIZES]);
	converse(&k, &up, &down, sizes[i].piece);
	finish(&k);
}
END_TEST

/*
 * A server that does not read holds up what is for it, and nothing else; and the relay stops
 * reading.
 */
START_TEST(no_head_of_line_blocking)
{
	struct flow up = { .len = 64 << 20, .seed = 7, .paused = true };
	struct flow down = { .len = 4 << 20, .seed = 9 };
	struct relayed k;

	start(&k, versions[1]);
	for (int idle = 0; idle < PATIENCE_MS && !all_there(&down); idle++) {
		if (step(&k, &up, &down, 16384))
			idle = 0;
		else
			poll(NULL, 0, 1);
	}
	ck_assert_uint_eq(down.got, down.len);
	/* buffers of two sockets and of the relay, but not all of it */
	ck_assert_uint_lt(up.sent, up.len);
	up.len = up.sent;
	up.paused = false;
	converse(&k, &up, &down, 16384);
	finish(&k);
}
END_TEST

/* And the same the other way round. */
START_TEST(a_reader_that_pauses)
{
	struct flow up = { .len = 4 << 20, .seed = 7 };
	struct flow down = { .len = 64 << 20, .seed = 9, .paused = true };
	struct relayed k;

	start(&k, versions[1]);
	for (int idle = 0; idle < PATIENCE_MS && !all_there(&up); idle++) {
		if (step(&k, &up, &down, 16384))
			idle = 0;
		else
			poll(NULL, 0, 1);
	}
	ck_assert_uint_eq(up.got, up.len);
	ck_assert_uint_lt(down.sent, down.len);
	down.len = down.sent;
	down.paused = false;
	converse(&k, &up, &down, 16384);
	finish(&k);
}
END_TEST

/* What the server gets after the last byte: 0 is a goodbye. */
static ssize_t last_word(struct relayed *k)
{
	unsigned char buf[16];
	ssize_t n = GNUTLS_E_AGAIN;

	for (int i = 0; i < PATIENCE_MS && n == GNUTLS_E_AGAIN; i++) {
		n = gnutls_record_recv(k->p.session, buf, sizeof(buf));
		if (n == GNUTLS_E_AGAIN)
			poll(NULL, 0, 1);
	}
	return n;
}

/* As the kernel does at a detach: the last request, and the end. */
START_TEST(local_end)
{
	struct flow up = { .len = 300000, .seed = 1 }, none = { 0 };
	struct relayed k;

	start(&k, versions[_i]);
	while (up.sent < up.len)
		step(&k, &up, &none, 65536);
	close(k.local);
	k.local = -1;
	converse(&k, &up, &none, 65536);
	ck_assert_int_eq(last_word(&k), 0); /* a goodbye, not a cut */
	finish(&k);
}
END_TEST

/*
 * What was sent last fills the network, up to the last byte or not quite: there is a goodbye all
 * the same. (A socket holds some 200 KiB; where it is less, not everything is sent while nobody
 * reads.)
 */
START_TEST(goodbye_without_room)
{
	struct flow none = { 0 };
	struct relayed k;

	for (size_t len = 140000; len <= 260000; len += 2000) {
		struct flow up = { .len = len, .seed = 1, .paused = true };

		start(&k, versions[1]);
		for (int idle = 0; idle < 20 && up.sent < up.len; idle++) {
			if (step(&k, &up, &none, 65536))
				idle = 0;
			else
				poll(NULL, 0, 1);
		}
		up.len = up.sent;
		close(k.local);
		k.local = -1;
		poll(NULL, 0, 10);
		up.paused = false;
		converse(&k, &up, &none, 65536);
		ck_assert_msg(!last_word(&k), "no goodbye after %zu bytes", len);
		finish(&k);
	}
}
END_TEST

/*
 * What has nothing to do with the data (tickets, new keys) and data arrive together: no poll
 * wakes for what was read.
 */
START_TEST(news_before_data)
{
	static const size_t lengths[] = { 1, 28, 16384, 50000 };
	struct flow none = { 0 };
	struct relayed k;
	pid_t pid;

	start(&k, versions[1]);
	pid = leak_only_child(getpid());
	ck_assert_int_gt(pid, 0);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct flow down = { .len = lengths[i], .seed = 1 };

		/*
		 * All of it waits together. More than 8 new keys in a second, and GnuTLS defends
		 * itself.
		 */
		kill(pid, SIGSTOP);
		for (int j = 0; j < 2; j++)
			ck_assert_int_eq(_i ? gnutls_session_key_update(k.p.session, 0) :
					      gnutls_session_ticket_send(k.p.session, 2, 0),
					 0);
		down.paused = true;
		while (down.sent < down.len)
			step(&k, &none, &down, 16384);
		kill(pid, SIGCONT);
		down.paused = false;
		converse(&k, &none, &down, 16384);
	}
	close(k.local);
	k.local = -1;
	finish(&k);
}
END_TEST

/* All that the server has said arrives before its end does. */
START_TEST(server_end)
{
	struct flow down = { .len = 100000, .seed = 1 }, none = { 0 };
	unsigned char c;
	struct relayed k;
	ssize_t n = -1;

	start(&k, versions[1]);
	for (int i = 0; i < PATIENCE_MS && down.sent < down.len; i++)
		if (!step(&k, &none, &down, 16384))
			poll(NULL, 0, 1);
	if (_i)
		gnutls_bye(k.p.session, GNUTLS_SHUT_WR);
	shutdown(k.p.fd, SHUT_RDWR);
	converse(&k, &none, &down, 16384);
	for (int i = 0; i < PATIENCE_MS && (n = recv(k.local, &c, 1, 0)) < 0; i++)
		poll(NULL, 0, 1);
	ck_assert_int_eq(n, 0);
	finish(&k);
}
END_TEST

/* Records that are none end it; nothing of them comes through. */
START_TEST(forged_record)
{
	struct relayed k;
	unsigned char c;
	ssize_t n = -1;

	start(&k, versions[1]);
	ck_assert_int_eq(send(k.p.fd,
			      "\x17\x03\x03\x00\x20"
			      "0123456789abcdef0123456789abcdef",
			      37, 0),
			 37);
	for (int i = 0; i < PATIENCE_MS && (n = recv(k.local, &c, 1, 0)) < 0; i++)
		poll(NULL, 0, 1);
	ck_assert_int_eq(n, 0);
	finish(&k);
}
END_TEST

/* The kernel sees a closed socket when the relay is killed. */
START_TEST(killed)
{
	unsigned before = leak_fds();
	struct relayed k;
	unsigned char c;
	ssize_t n = -1;
	pid_t pid;

	start(&k, versions[1]);
	pid = leak_only_child(getpid());
	ck_assert_int_gt(pid, 0);
	kill(pid, SIGKILL);
	for (int i = 0; i < PATIENCE_MS && (n = recv(k.local, &c, 1, 0)) < 0 && errno == EAGAIN;
	     i++)
		poll(NULL, 0, 1);
	ck_assert_int_eq(n, 0);
	close(k.local);
	peer_close(&k.p);
	waitpid(pid, NULL, 0);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* Moves len bytes each way between two ends with a relay in between. */
static void exchange(const int ends[2], size_t len)
{
	struct flow flows[2] = { { .len = len, .seed = 3 }, { .len = len, .seed = 5 } };
	unsigned char buf[65536];

	for (int idle = 0; idle < PATIENCE_MS && !(all_there(&flows[0]) && all_there(&flows[1]));
	     idle++) {
		bool moved = false;

		for (int i = 0; i < 2; i++) {
			struct flow *f = &flows[i];
			size_t want = f->len - f->sent < sizeof(buf) ? f->len - f->sent :
								       sizeof(buf);
			ssize_t n;

			for (size_t j = 0; j < want; j++)
				buf[j] = byte(f->sent + j, f->seed);
			n = want ? send(ends[i], buf, want, MSG_NOSIGNAL) : 0;
			f->sent += n > 0 ? (size_t)n : 0;
			moved |= n > 0;
			n = recv(ends[!i], buf, sizeof(buf), 0);
			ck_assert(n > 0 || errno == EAGAIN);
			ck_assert(n < 0 || check(f, buf, n));
			moved |= n > 0;
		}
		if (moved)
			idle = 0;
		else
			poll(NULL, 0, 1);
	}
	ck_assert(all_there(&flows[0]) && all_there(&flows[1]));
}

/* Without TLS: the bytes as they are, and what came before an end before the end. */
START_TEST(plain)
{
	int fds[2], ends[2], status = -1;
	char buf[16];
	struct err e;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
	ends[0] = relay_start(NULL, fds[0], false, &e);
	ck_assert_msg(ends[0] >= 0, "%s", e.text);
	close(fds[0]);
	ends[1] = fds[1];
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	exchange(ends, 3 << 20);
	ck_assert_int_eq(send(ends[_i], "bye", 3, 0), 3);
	close(ends[_i]);
	fcntl(ends[!_i], F_SETFL, 0);
	ck_assert_int_eq(recv(ends[!_i], buf, sizeof(buf), MSG_WAITALL), 3);
	ck_assert_int_eq(recv(ends[!_i], buf, sizeof(buf), 0), 0);
	close(ends[!_i]);
	ck_assert(waitpid(-1, &status, 0) > 0);
	ck_assert_int_eq(status, 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("relay");
	TCase *t = tcase_create("relay");

	tcase_add_unchecked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, both_ways, 0, 3 * SIZES);
	tcase_add_test(t, no_head_of_line_blocking);
	tcase_add_test(t, a_reader_that_pauses);
	tcase_add_loop_test(t, local_end, 0, 2);
	tcase_add_test(t, goodbye_without_room);
	tcase_add_loop_test(t, news_before_data, 0, 2);
	tcase_add_loop_test(t, plain, 0, 2);
	tcase_add_loop_test(t, server_end, 0, 2);
	tcase_add_test(t, forged_record);
	tcase_add_test(t, killed);
	suite_add_tcase(s, t);
	return s;
}
