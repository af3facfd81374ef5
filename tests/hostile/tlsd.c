/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * An NBD server with TLS that sends other things than NBD inside TLS, when it is least expected:
 *
 *   tlsd PORT CREDENTIALS WAY [N]
 *
 * It listens on PORT of 127.0.0.1, one process for each client. CREDENTIALS is a directory with
 * server-cert.pem and server-key.pem, or a file of pre-shared keys. The one export, under any name,
 * has 4 MiB in memory that all clients share. Each sector holds its own number, again and again.
 *
 *   plain           nothing special
 *   tickets         session tickets after the handshake of TLS, before any option
 *   tickets-go      session tickets in the middle of the answers to NBD_OPT_GO
 *   tickets-data    session tickets after N replies in the transmission phase
 *   update          new keys after N replies
 *   update-both     the same, and the client is asked for new ones of its own
 *   updates         new keys after every N replies, once a second at most: clients defend
 *                   themselves
 *
 * What it did is on standard error, a line for each.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#include "base/bytes.h"
#include "proto/wire.h"

enum {
	SIZE = 4 << 20,
	SECTOR = 512,
	OPTION_MAX = 8192,
	REQUEST_MAX = 4 << 20,
	TICKETS = 2,
};

enum way { PLAIN, TICKETS_FIRST, TICKETS_GO, TICKETS_DATA, UPDATE, UPDATE_BOTH, UPDATES, WAYS };
static const char *const ways[WAYS] = {
	"plain", "tickets", "tickets-go", "tickets-data", "update", "update-both", "updates",
};

struct client {
	int fd;
	gnutls_session_t session; /* NULL: plain text */
	enum way way;
	unsigned long after, replies;
	time_t last;
	uint8_t *disk;
	uint8_t buf[REQUEST_MAX + 64];
};

__attribute__((noreturn, format(printf, 1, 2))) static void quit(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "end: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void must(int code, const char *doing)
{
	if (code < 0)
		quit("%s: %s", doing, gnutls_strerror(code));
}

static void put(struct client *c, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = c->session ? gnutls_record_send(c->session, p, len) :
					 send(c->fd, p, len, MSG_NOSIGNAL);

		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		if (n <= 0)
			quit("send: %s", c->session ? gnutls_strerror((int)n) : strerror(errno));
		p += n;
		len -= (size_t)n;
	}
}

static void get(struct client *c, void *data, size_t len)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = c->session ? gnutls_record_recv(c->session, p, len) :
					 recv(c->fd, p, len, 0);

		if (c->session && (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED))
			continue;
		if (!n)
			quit("the client has left");
		if (n < 0)
			quit("receive: %s", c->session ? gnutls_strerror((int)n) : strerror(errno));
		p += n;
		len -= (size_t)n;
	}
}

static void tickets(struct client *c, const char *when)
{
	must(gnutls_session_ticket_send(c->session, TICKETS, 0), "send tickets");
	fprintf(stderr, "%d tickets sent %s\n", TICKETS, when);
}

static void update(struct client *c, unsigned flags)
{
	must(gnutls_session_key_update(c->session, flags), "update keys");
	fprintf(stderr, "keys updated after %lu replies\n", c->replies);
}

static void start_tls(struct client *c, const char *credentials)
{
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk;
	gnutls_datum_t key;
	char cert[4096], secret[4096];
	struct stat st;
	gnutls_session_t s;

	must(gnutls_init(&s, GNUTLS_SERVER), "TLS");
	must(gnutls_priority_set_direct(s, "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", NULL), "priorities");
	if (!stat(credentials, &st) && S_ISDIR(st.st_mode)) {
		snprintf(cert, sizeof(cert), "%s/server-cert.pem", credentials);
		snprintf(secret, sizeof(secret), "%s/server-key.pem", credentials);
		must(gnutls_certificate_allocate_credentials(&x509), "TLS");
		must(gnutls_certificate_set_x509_key_file(x509, cert, secret, GNUTLS_X509_FMT_PEM),
		     cert);
		must(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, x509), "TLS");
	} else {
		must(gnutls_psk_allocate_server_credentials(&psk), "TLS");
		must(gnutls_psk_set_server_credentials_file(psk, credentials), credentials);
		must(gnutls_credentials_set(s, GNUTLS_CRD_PSK, psk), "TLS");
	}
	must(gnutls_session_ticket_key_generate(&key), "ticket key");
	must(gnutls_session_ticket_enable_server(s, &key), "tickets");
	gnutls_transport_set_int(s, c->fd);
	must(gnutls_handshake(s), "handshake");
	c->session = s;
	fprintf(stderr, "%s, %s\n", gnutls_protocol_get_name(gnutls_protocol_get_version(s)),
		gnutls_cipher_get_name(gnutls_cipher_get(s)));
	if (c->way == TICKETS_FIRST)
		tickets(c, "before the options");
}

static void reply(struct client *c, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	uint8_t head[20];
	struct bytes_writer w;

	bytes_write_init(&w, head, sizeof(head));
	bytes_put_u64(&w, NBD_REP_MAGIC);
	bytes_put_u32(&w, option);
	bytes_put_u32(&w, type);
	bytes_put_u32(&w, len);
	put(c, head, sizeof(head));
	put(c, data, len);
}

static void granted(struct client *c, uint32_t option)
{
	uint8_t info[12];
	struct bytes_writer w;

	bytes_write_init(&w, info, sizeof(info));
	bytes_put_u16(&w, NBD_INFO_EXPORT);
	bytes_put_u64(&w, SIZE);
	bytes_put_u16(&w, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	reply(c, option, NBD_REP_INFO, info, sizeof(info));
	if (c->way == TICKETS_GO)
		tickets(c, "before the end of the options");
	reply(c, option, NBD_REP_ACK, NULL, 0);
}

/* Until the transmission phase. */
static void options(struct client *c, const char *credentials)
{
	struct bytes_writer w;
	struct bytes_reader r;
	uint32_t option, len;
	uint64_t magic;

	bytes_write_init(&w, c->buf, sizeof(c->buf));
	bytes_put_u64(&w, NBD_INIT_MAGIC);
	bytes_put_u64(&w, NBD_OPTS_MAGIC);
	bytes_put_u16(&w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	put(c, c->buf, 18);
	get(c, c->buf, 4);
	for (;;) {
		get(c, c->buf, 16);
		bytes_read_init(&r, c->buf, 16);
		magic = bytes_get_u64(&r);
		option = bytes_get_u32(&r);
		len = bytes_get_u32(&r);
		if (magic != NBD_OPTS_MAGIC || len > OPTION_MAX)
			quit("bad option");
		get(c, c->buf, len);
		if (option == NBD_OPT_STARTTLS && !c->session) {
			reply(c, option, NBD_REP_ACK, NULL, 0);
			start_tls(c, credentials);
		} else if (!c->session) {
			reply(c, option, NBD_REP_ERR_TLS_REQD, NULL, 0);
		} else if (option == NBD_OPT_ABORT) {
			reply(c, option, NBD_REP_ACK, NULL, 0);
			quit("the client has taken leave");
		} else if (option == NBD_OPT_GO || option == NBD_OPT_INFO) {
			granted(c, option);
			if (option == NBD_OPT_GO)
				return;
		} else {
			reply(c, option, NBD_REP_ERR_UNSUP, NULL, 0);
		}
	}
}

static void between_replies(struct client *c)
{
	bool due = c->replies == c->after;

	if (c->way == UPDATES) {
		if (c->replies % c->after || time(NULL) == c->last)
			return;
		c->last = time(NULL);
		update(c, 0);
	} else if (due && c->way == TICKETS_DATA) {
		tickets(c, "in the transmission phase");
	} else if (due && (c->way == UPDATE || c->way == UPDATE_BOTH)) {
		update(c, c->way == UPDATE_BOTH ? GNUTLS_KU_PEER : 0);
	}
}

static void transmission(struct client *c)
{
	uint8_t request[28];
	struct bytes_reader r;
	struct bytes_writer w;
	uint64_t cookie, offset;
	uint32_t magic, len, given, error;
	uint16_t type;

	for (;;) {
		get(c, request, sizeof(request));
		bytes_read_init(&r, request, sizeof(request));
		magic = bytes_get_u32(&r);
		bytes_get_u16(&r);
		type = bytes_get_u16(&r);
		cookie = bytes_get_u64(&r);
		offset = bytes_get_u64(&r);
		len = bytes_get_u32(&r);
		if (magic != NBD_REQUEST_MAGIC || len > REQUEST_MAX)
			quit("bad request");
		if (type == NBD_CMD_DISC)
			quit("the client has taken leave after %lu replies", c->replies);
		if (type == NBD_CMD_WRITE)
			get(c, c->buf, len);
		error = offset > SIZE || len > SIZE - offset ? EINVAL : 0;
		given = type == NBD_CMD_READ && !error ? len : 0;
		if (type == NBD_CMD_WRITE && !error)
			memcpy(c->disk + offset, c->buf, len);
		bytes_write_init(&w, c->buf, sizeof(c->buf));
		bytes_put_u32(&w, NBD_SIMPLE_REPLY_MAGIC);
		bytes_put_u32(&w, error);
		bytes_put_u64(&w, cookie);
		if (given)
			memcpy(c->buf + 16, c->disk + offset, given);
		put(c, c->buf, 16 + given);
		c->replies++;
		between_replies(c);
	}
}

static uint8_t *make_disk(void)
{
	uint8_t *disk = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (disk == MAP_FAILED)
		quit("memory: %s", strerror(errno));
	for (uint32_t i = 0; i < SIZE / sizeof(i); i++) {
		uint32_t number = i / (SECTOR / sizeof(i));

		memcpy(disk + i * sizeof(i), &number, sizeof(number));
	}
	return disk;
}

int main(int argc, char *argv[])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct client *c = calloc(1, sizeof(*c));
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (argc < 4 || !c || listener < 0)
		quit("usage: tlsd PORT CREDENTIALS WAY [N]");
	while (c->way < WAYS && strcmp(ways[c->way], argv[3]))
		c->way++;
	c->after = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
	if (c->way == WAYS || (c->way >= TICKETS_DATA && !c->after))
		quit("no such way, or it needs a number");
	c->disk = make_disk();
	a.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 16))
		quit("port %s: %s", argv[1], strerror(errno));
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (c->fd >= 0 && !fork()) {
			setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			options(c, argv[2]);
			transmission(c);
		}
		close(c->fd);
	}
}
