/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/reconnect.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

#include "../unit.h"

/*
 * tests/unit/data/reconnect.rules: each rule is told as a story. "== RULE" begins one, the next
 * line is its configuration, words of:
 *
 *	C=2  connections             t=30        request timeout, s
 *	S=2  servers                 give-up=60  reconnect timeout, s
 *	fence=15  fence delay, s     renew=100   TLS records      tls  kernel TLS
 *	conn=UW?DR   up, unwatched, doubtful, down, down and reported
 *	size=16      of the device, in blocks      sizes=16,0  of the servers
 *	known=16     as told on the connections
 *	server=1  fenced=5000  paused              what an earlier supervisor has left
 *	beyond=W    behind the last connection, where nobody may look
 *
 * The default is C=1 t=30 S=1 fence=15 conn=UU.. size=16 sizes=16,16,.. A line of the story is
 * "TIME EVENT: ACTIONS; DEADLINE". TIME is absolute, ms; +5 is 5 ms after the last line, and + is
 * the deadline. ACTIONS are all there are, in this order. DEADLINE is absolute, - for none, <200
 * for a random one from 20 to 200 ms from now; without it none is checked. The first event is the
 * reconnect_init, whatever it is called. "x9 TIME EVENT, TIME EVENT" repeats events nine times
 * without a look at actions. What begins with # is a comment. With RECONNECT_TELL in the
 * environment (and CK_FORK=no) what happens is printed, not checked.
 */
static char rules[1 << 17];

struct story {
	struct rc_config config;
	struct plan plan;
	struct reconnect r;
	long long now;
	char actions[4096];
};

static const struct {
	const char *name;
	int code;
	enum err_kind kind;
} failures[] = {
	{ "refused", ECONNREFUSED, ERR_UNREACHABLE },
	{ "silent", ETIMEDOUT, ERR_UNREACHABLE },
	{ "unfit", ENOENT, ERR_REFUSED },
	{ "broken", EPROTO, ERR_PROTOCOL },
	{ "differ", EINVAL, ERR_MULTI },
	{ "local", EAGAIN, ERR_FAILED },
};

static const char *const note_names[RC_NOTES] = {
	[RC_NOTE_LOST] = "lost",
	[RC_NOTE_RECONNECTED] = "reconnected",
	[RC_NOTE_FAILED] = "failed",
	[RC_NOTE_FLAPPING] = "flapping",
	[RC_NOTE_RENEWED] = "renewed",
	[RC_NOTE_RENEWED_SIZE] = "renewed-size",
	[RC_NOTE_NOT_RENEWED] = "not-renewed",
	[RC_NOTE_GROWN] = "grown",
	[RC_NOTE_NOT_GROWN] = "not-grown",
	[RC_NOTE_PAUSED] = "paused",
	[RC_NOTE_HANGS] = "hangs",
	[RC_NOTE_DETACHED] = "detached",
	[RC_NOTE_DISCONNECTED] = "disconnected",
	[RC_NOTE_SUCCEEDED] = "succeeded",
};

static __attribute__((format(printf, 2, 3))) void add_text(char *text, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + len, sizeof(((struct story *)NULL)->actions) - len, fmt, ap);
	va_end(ap);
}

static const char *error_name(int code)
{
	static const struct {
		int code;
		const char *name;
	} names[] = {
		{ 0, "ok" },
		{ EBUSY, "EBUSY" },
		{ ETIMEDOUT, "ETIMEDOUT" },
		{ ECONNREFUSED, "ECONNREFUSED" },
		{ ECONNRESET, "ECONNRESET" },
		{ ESTALE, "ESTALE" },
		{ ENODEV, "ENODEV" },
		{ ENOENT, "ENOENT" },
		{ EPROTO, "EPROTO" },
		{ EINVAL, "EINVAL" },
		{ EAGAIN, "EAGAIN" },
		{ EIO, "EIO" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].code == code)
			return names[i].name;
	ck_abort_msg("error %d has no name", code);
	return "";
}

static void add_note_text(char *text, const struct rc_action *a)
{
	add_text(text, "note %s", note_names[a->note]);
	switch (a->note) {
	case RC_NOTE_LOST:
	case RC_NOTE_FLAPPING:
		add_text(text, " %llu", (unsigned long long)a->number);
		break;
	case RC_NOTE_RECONNECTED:
		add_text(text, " %lld", a->ms);
		break;
	case RC_NOTE_FAILED:
		add_text(text, " %u", a->server);
		break;
	case RC_NOTE_RENEWED:
	case RC_NOTE_RENEWED_SIZE:
	case RC_NOTE_NOT_RENEWED:
		add_text(text, " %u", a->conn);
		break;
	case RC_NOTE_GROWN:
	case RC_NOTE_NOT_GROWN:
		add_text(text, " %llu-%llu", (unsigned long long)a->number / 512,
			 (unsigned long long)a->size / 512);
		break;
	default:
		break;
	}
	if (a->err)
		add_text(text, " %s", error_name(a->err->code));
}

static void add_action_text(char *text, const struct rc_action *a)
{
	add_text(text, "%s", text[0] ? ", " : "");
	switch (a->type) {
	case RC_DIAL:
		add_text(text, "dial %u %u", a->server, a->count);
		break;
	case RC_CANCEL_DIAL:
		add_text(text, "cancel");
		break;
	case RC_OFFER:
		add_text(text, "offer %u", a->candidate);
		break;
	case RC_PROBE:
		add_text(text, "probe");
		break;
	case RC_RESIZE:
		add_text(text, "resize %llu", (unsigned long long)a->size / 512);
		break;
	case RC_DISCONNECT:
		add_text(text, "disconnect");
		break;
	case RC_INSTALL:
		add_text(text, "install %u as %u", a->candidate, a->conn);
		break;
	case RC_DROP:
		add_text(text, "drop %u", a->candidate);
		break;
	case RC_CUT:
		add_text(text, "cut %u", a->conn);
		break;
	case RC_READ_TRAFFIC:
		add_text(text, "look");
		break;
	case RC_REPLY:
		add_text(text, "reply %u %s", a->client, error_name(-a->ret));
		ck_assert(!a->ret == !a->err);
		ck_assert(!a->err || a->err->code == -a->ret);
		break;
	case RC_HAND_OVER:
		add_text(text, "hand-over %u", a->client);
		break;
	case RC_NOTE:
		add_note_text(text, a);
		break;
	case RC_PUBLISH:
		add_text(text, "publish");
		break;
	case RC_END:
		add_text(text, "end %s", error_name(-a->ret));
		ck_assert(!a->ret == !a->err);
		break;
	}
}

/* The value of "name=" among the words, or NULL. */
static const char *find_word(const char *words, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = words; p; p = strchr(p, ' ')) {
		p += *p == ' ';
		if (!strncmp(p, name, len))
			return p + len;
	}
	return NULL;
}

static unsigned number_of(const char *words, const char *name, unsigned otherwise)
{
	const char *value = find_word(words, name);

	return value ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}

static void set_up_connections(struct rc_config *c, const char *words, long long now)
{
	const char *states = find_word(words, "conn="), *at;
	static const char letters[] = "UW?-DR";

	for (unsigned i = 0; i < c->connections; i++) {
		at = states ? strchr(letters, states[i]) : letters;
		ck_assert_ptr_nonnull(at);
		c->conn[i].state = at - letters == 5 ? RC_DOWN : (enum rc_conn_state)(at - letters);
		c->conn[i].reported = *at == 'R';
		c->conn[i].since = c->conn[i].state == RC_UP ? now - 100000 : now;
		c->conn[i].size = 512 * number_of(words, "known=", 16);
		c->conn[i].kernel_tls = find_word(words, "tls");
	}
	if (c->connections == PLAN_CONNECTIONS_MAX)
		return;
	c->conn[c->connections] = (struct rc_conn){
		.state = find_word(words, "beyond=W") ? RC_UNWATCHED : RC_DOWN,
		.since = find_word(words, "beyond=W") ? 1000000 : -1000,
		.reported = true,
	};
}

static void set_up(struct story *s, const char *words)
{
	const char *sizes = find_word(words, "sizes=");
	struct rc_config *c = &s->config;
	struct rc_durable *d = &c->durable;

	c->connections = number_of(words, "C=", 1);
	c->servers = number_of(words, "S=", 1);
	c->request_timeout_s = number_of(words, "t=", 30);
	c->reconnect_timeout_s = number_of(words, "give-up=", 0);
	c->fence_delay_s = number_of(words, "fence=", 15);
	c->tls_renew = number_of(words, "renew=", 0);
	c->plan = &s->plan;
	c->export_name = "";
	c->seed = number_of(words, "seed=", 1);
	s->plan.block_size = 512;
	s->plan.server_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN;
	s->plan.multi_conn = c->connections > 1;
	d->size = 512 * number_of(words, "size=", 16);
	d->server = number_of(words, "server=", 0);
	d->paused = find_word(words, "paused") != NULL;
	d->fenced_until = number_of(words, "fenced=", 0);
	for (unsigned i = 0; i < c->servers; i++) {
		d->server_size[i] = sizes ? 512 * strtoul(sizes, NULL, 10) : d->size;
		sizes = sizes ? strchr(sizes, ',') : NULL;
		sizes += sizes != NULL;
	}
	set_up_connections(c, words, s->now);
	/* Neither the memory nor what is behind the connections is taken for granted. */
	memset(&s->r, 0xff, sizeof(s->r));
	reconnect_init(&s->r, c, s->now);
}

static enum rc_request request_of(const char *name)
{
	static const char *const names[] = {
		[RC_ASK_PAUSE] = "pause", [RC_ASK_RESUME] = "resume",   [RC_ASK_RESCAN] = "rescan",
		[RC_ASK_ABORT] = "abort", [RC_ASK_HAND_OVER] = "leave",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(names[i], name))
			return i;
	ck_abort_msg("no event %s", name);
	return 0;
}

/* "dialed COUNT [size] [tls] [read-only]" or "dialed FAILURE" */
static void parse_dialed(struct rc_event *ev, const char *args, struct err *e, struct export *x)
{
	ev->type = RC_DIAL_DONE;
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		if (strcmp(failures[i].name, args))
			continue;
		ev->ret = err_set(e, failures[i].kind, failures[i].code, "%s", args);
		ev->err = e;
		return;
	}
	ev->count = (unsigned)strtoul(args, NULL, 10);
	x->size = 512 * number_of(args, "size=", 16);
	x->flags = NBD_FLAG_HAS_FLAGS;
	if (!find_word(args, "single"))
		x->flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (find_word(args, "read-only"))
		x->flags |= NBD_FLAG_READ_ONLY;
	ev->kernel_tls = find_word(args, "tls");
	ev->export = x;
}

static void parse_traffic(struct rc_event *ev, const char *args)
{
	unsigned long long requests = 0, bytes = 0, in_flight = 0;

	ev->type = RC_TRAFFIC;
	if (!strcmp(args, "unreadable"))
		ev->ret = -EIO;
	else
		ck_assert_int_eq(sscanf(args, "%llu %llu %llu", &requests, &bytes, &in_flight), 3);
	ev->requests = requests;
	ev->bytes = bytes;
	ev->in_flight = in_flight;
}

static void parse_event(struct rc_event *ev, const char *name, const char *args, struct err *e,
			struct export *x)
{
	static const struct {
		const char *name;
		struct rc_event ev;
	} plain[] = {
		{ "tick", { .type = RC_TICK } },
		{ "dead", { .type = RC_LINK_DEAD } },
		{ "overrun", { .type = RC_LINK_DEAD, .lost = true } },
		{ "done", { .type = RC_COMMAND_DONE } },
		{ "taken", { .type = RC_COMMAND_DONE, .taken = true } },
		{ "failed", { .type = RC_COMMAND_DONE, .result = RC_FAILED } },
		{ "failed-taken", { .type = RC_COMMAND_DONE, .result = RC_FAILED, .taken = true } },
		{ "zombie", { .type = RC_COMMAND_DONE, .result = RC_DISCONNECTED } },
		{ "stranger", { .type = RC_COMMAND_DONE, .result = RC_NOT_OURS } },
		{ "handed", { .type = RC_HANDED_OVER } },
		{ "unhanded", { .type = RC_HANDED_OVER, .ret = -EIO } },
		{ "detached", { .type = RC_DETACHED } },
	};
	unsigned number = (unsigned)strtoul(args, NULL, 10);

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (strcmp(plain[i].name, name))
			continue;
		*ev = plain[i].ev;
		if (ev->result != RC_OK)
			err_set(e, ERR_KERNEL, EIO, "the kernel says no");
		ev->err = e;
		return;
	}
	if (!strcmp(name, "dialed"))
		parse_dialed(ev, args, e, x);
	else if (!strcmp(name, "traffic"))
		parse_traffic(ev, args);
	else if (!strcmp(name, "ended"))
		*ev = (struct rc_event){ .type = RC_SOCKET_ENDED, .conn = number };
	else if (!strcmp(name, "cut"))
		*ev = (struct rc_event){ .type = RC_CUT_DONE, .conn = number };
	else if (!strcmp(name, "closed"))
		*ev = (struct rc_event){ .type = RC_CANDIDATE_ENDED, .candidate = number };
	else if (!strcmp(name, "gone"))
		*ev = (struct rc_event){ .type = RC_CLIENT_GONE, .client = number };
	else
		*ev = (struct rc_event){ .type = RC_CLIENT,
					 .client = number,
					 .request = request_of(name) };
}

static void take_event(struct story *s, const char *text)
{
	struct export *x = calloc(1, sizeof(*x));
	char name[32] = "", args[64] = "";
	struct rc_event ev = { 0 };
	struct err e = { 0 };

	ck_assert_ptr_nonnull(x);
	ck_assert_int_ge(sscanf(text, " %31s %63[^:]", name, args), 1);
	parse_event(&ev, name, args, &e, x);
	reconnect_event(&s->r, &ev, s->now);
	/* What is pointed to lives until the event has been taken only. */
	memset(&e, 'X', sizeof(e));
	memset(x, 'X', sizeof(*x));
	free(x);
}

static void set_time(struct story *s, const char *text)
{
	long long number = strtoll(text + (*text == '+'), NULL, 10);

	if (*text != '+')
		s->now = number;
	else if (text[1])
		s->now += number;
	else
		s->now = reconnect_deadline(&s->r);
	ck_assert_int_ge(s->now, 0);
}

static void check_deadline(const struct story *s, const char *text, const char *where)
{
	long long when = reconnect_deadline(&s->r), number;

	while (*text == ' ')
		text++;
	number = strtoll(text + (*text == '<'), NULL, 10);
	if (*text == '-')
		ck_assert_msg(when == RC_NEVER, "%s: the deadline is %lld", where, when);
	else if (*text == '<')
		ck_assert_msg(when >= s->now + 20 && when <= s->now + number,
			      "%s: the deadline is %lld", where, when);
	else
		ck_assert_msg(when == number, "%s: the deadline is %lld", where, when);
}

/* "x9 TIME EVENT, TIME EVENT" */
static void repeat_events(struct story *s, const char *line)
{
	char *rest;
	unsigned long times = strtoul(line + 1, &rest, 10);
	struct rc_action a;

	for (; times; times--)
		for (const char *p = rest; p; p = strchr(p, ',')) {
			char time[32], event[128];

			p += *p == ',';
			ck_assert_int_eq(sscanf(p, "%31s %127[^,]", time, event), 2);
			set_time(s, time);
			take_event(s, event);
			while (reconnect_action(&s->r, &a))
				;
		}
}

/* "TIME EVENT: ACTIONS; DEADLINE", without its newline */
static void tell_line(struct story *s, const char *says, const char *config, const char *line,
		      bool first)
{
	char time[32] = "", event[128] = "", actions[1024] = "", where[1400];
	const char *deadline = strchr(line, ';');
	struct rc_action a;

	if (line[0] == 'x') {
		repeat_events(s, line);
		return;
	}
	ck_assert_int_ge(sscanf(line, "%31s %127[^:;]: %1023[^;]", time, event, actions), 2);
	snprintf(where, sizeof(where), "%s: %s", says, line);
	set_time(s, time);
	if (first)
		set_up(s, config);
	else
		take_event(s, event);
	s->actions[0] = '\0';
	while (reconnect_action(&s->r, &a))
		add_action_text(s->actions, &a);
	if (getenv("RECONNECT_TELL")) {
		printf("%s %s: %s; %lld\n", time, event, s->actions, reconnect_deadline(&s->r));
		return;
	}
	ck_assert_msg(!strcmp(s->actions, actions), "%s\n  but: %s; %lld", where, s->actions,
		      reconnect_deadline(&s->r));
	if (deadline)
		check_deadline(s, deadline + 1, where);
}

/* The next line of the text, without its newline; NULL: there is none. */
static char *next_line(char **text)
{
	char *line;

	do {
		line = strsep(text, "\n");
	} while (line && (line[0] == '#' || !line[0]));
	return line;
}

static bool begins_rule(const char *line)
{
	return line && !strncmp(line, "== ", 3);
}

START_TEST(rule)
{
	struct story *s = calloc(1, sizeof(*s));
	char *copy = strdup(rules), *text = copy, *line, *says = NULL, *config;

	ck_assert(s && copy);
	for (int i = -1; i < _i && text; i += begins_rule(says))
		says = next_line(&text);
	config = next_line(&text);
	if (getenv("RECONNECT_TELL"))
		printf("%s\n%s\n", says, config);
	for (bool first = true; (line = next_line(&text)) && !begins_rule(line); first = false)
		tell_line(s, says, config, line, first);
	free(copy);
	free(s);
}
END_TEST

/* What whoever shows the device is told. */
START_TEST(status)
{
	struct story *s = calloc(1, sizeof(*s));
	struct rc_status now;

	ck_assert_ptr_nonnull(s);
	set_up(s, "C=5 conn=UW?DR S=2 sizes=16,20 server=1 fence=2");
	reconnect_status(&s->r, &now);
	ck_assert_int_eq(now.phase, RC_BACKING_OFF);
	ck_assert_uint_eq(now.alive, 2);
	ck_assert_uint_eq(now.reconnects, 0);
	ck_assert_uint_eq(now.failures, 0);
	ck_assert_int_eq(now.last_error->code, 0);
	ck_assert_uint_eq(reconnect_durable(&s->r)->server, 1);
	ck_assert_uint_eq(reconnect_durable(&s->r)->server_size[1], 20 * 512);
	ck_assert_int_eq(reconnect_durable(&s->r)->fenced_until, 2000);
	repeat_events(s,
		      "x1 + tick, +5 dialed refused, + tick, +5 dialed 3, +0 taken, +0 closed 1");
	reconnect_status(&s->r, &now);
	ck_assert_int_eq(now.phase, RC_OFFERING);
	ck_assert_uint_eq(now.alive, 3);
	ck_assert_uint_eq(now.reconnects, 1);
	ck_assert_uint_eq(now.failures, 1);
	ck_assert_int_eq(now.last_error->code, ECONNREFUSED);
	repeat_events(s, "x1 +0 detached");
	reconnect_status(&s->r, &now);
	ck_assert_int_eq(now.phase, RC_ENDED);
	free(s);
}
END_TEST

/* The error of each reply says its own thing, also when there are two in one event. */
START_TEST(errors)
{
	static const struct {
		const char *config, *before, *event;
		const char *says[3]; /* texts of the actions with an error, in order */
	} rows[] = {
		{ "C=2 conn=UW", "x1 +0 tick", "pause 1", { "connection 2 of 2" } },
		{ "C=1 conn=W t=0",
		  "x1 +0 tick",
		  "pause 1",
		  { "no pause until it has been lost" } },
		{ "C=2 conn=W? S=2", "x1 +0 tick", "rescan 1", { "paused or reconnecting" } },
		{ "S=2",
		  "x1 +0 rescan 1, +0 dialed 0",
		  "dialed refused",
		  { "server 2 of 2: refused" } },
		{ "S=1", "x1 +0 rescan 1", "dialed refused", { "=refused" } },
		{ "C=2 conn=UW", "x1 +0 rescan 1", "dialed 0 size=32", { "device grows when it" } },
		{ "S=1", "x1 +0 rescan 1", "ended 0", { "lost or cut" } },
		{ "S=1", "x1 +0 rescan 1", "detached", { "not supervised" } },
		{ "conn=R", "x1 +0 resume 1", "detached", { "not supervised any more" } },
		{ "conn=R",
		  "x1 +0 resume 1, + tick, +0 dialed refused, +30000 tick",
		  "tick",
		  { 0 } },
		{ "S=1", "x1 +0 pause 1", "pause 2", { "for somebody else" } },
		{ "S=1", "x1 +0 leave 1", "pause 2", { "about to end" } },
		{ "S=1", "x1 +0 dead", "leave 2", { "waits for the kernel" } },
		/* a client that has waited for too long, by the event that refuses another one */
		{ "conn=R",
		  "x1 +0 resume 1, + tick, +0 dialed local",
		  "pause 2 late",
		  { "for somebody else", "trying: local" } },
		{ "S=1",
		  "x1 +0 pause 1, +300 tick",
		  "rescan 2 late",
		  { "for somebody else", "may still reach the server" } },
		{ "conn=R give-up=60",
		  "x1 + tick, +0 dialed unfit, +60000 tick",
		  "done",
		  { "given up after 60 s without a connection: unfit" } },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct story *s = calloc(1, sizeof(*s));
		const char *says;
		struct rc_action a;
		unsigned n = 0;

		ck_assert_ptr_nonnull(s);
		set_up(s, rows[i].config);
		while (reconnect_action(&s->r, &a))
			;
		repeat_events(s, rows[i].before);
		s->now += strstr(rows[i].event, "late") ? 40000 : 0;
		take_event(s, rows[i].event);
		while (reconnect_action(&s->r, &a)) {
			if (!a.err)
				continue;
			says = n < 3 && rows[i].says[n] ? rows[i].says[n++] : "no error";
			ck_assert_msg(says[0] == '=' ? !strcmp(a.err->text, says + 1) :
						       strstr(a.err->text, says) != NULL,
				      "%s, %s: %s", rows[i].before, rows[i].event, a.err->text);
		}
		ck_assert_msg(!rows[i].says[n], "%s: %s", rows[i].event, rows[i].says[n]);
		free(s);
	}
}
END_TEST

/* The most that one event leads to. */
START_TEST(many)
{
	static const char *const configs[] = {
		"C=64 conn=RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR",
		"C=64 conn=URRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR",
	};

	for (size_t i = 0; i < 2; i++) {
		struct story *s = calloc(1, sizeof(*s));
		unsigned dropped = 0, cut = 0, others = 0;
		struct rc_action a;

		ck_assert_ptr_nonnull(s);
		set_up(s, configs[i]);
		while (reconnect_action(&s->r, &a))
			;
		repeat_events(s, "x1 + tick, +0 dialed 64, +0 resume 1");
		take_event(s, "abort 2");
		while (reconnect_action(&s->r, &a)) {
			dropped += a.type == RC_DROP;
			cut += a.type == RC_CUT;
			others += a.type != RC_DROP && a.type != RC_CUT;
		}
		/* the candidate that was offered has been installed, and cut */
		ck_assert_uint_eq(dropped, 63);
		ck_assert_uint_eq(cut, i + 1);
		ck_assert_uint_eq(others, 3);
		free(s);
	}
}
END_TEST

/* Before any test runs, as each rule is one: 0 rules are none, which fails. */
static int read_rules(void)
{
	const char *srcdir = getenv("srcdir");
	char path[4096];
	int count = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/unit/data/reconnect.rules", srcdir ? srcdir : ".");
	f = fopen(path, "re");
	if (!f || fread(rules, 1, sizeof(rules), f) == sizeof(rules)) {
		printf("# %s cannot be read, or is too long\n", path);
		return 0;
	}
	fclose(f);
	for (const char *p = rules; (p = strstr(p, "\n== ")); p++)
		count++;
	return count;
}

Suite *unit_suite(void)
{
	Suite *s = suite_create("reconnect");
	TCase *t = tcase_create("rules");

	tcase_add_loop_test(t, rule, 0, read_rules());
	suite_add_tcase(s, t);
	t = tcase_create("caller");
	tcase_add_test(t, status);
	tcase_add_test(t, errors);
	tcase_add_test(t, many);
	suite_add_tcase(s, t);
	return s;
}
