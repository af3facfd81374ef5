/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "net/tls_creds.h"

_Static_assert(sizeof(((struct uri *)0)->tls_hostname) ==
			       sizeof(((struct tls_params *)0)->hostname) &&
		       sizeof(((struct uri *)0)->tls_psk_file) ==
			       sizeof(((struct tls_params *)0)->psk_file) &&
		       sizeof(((struct uri *)0)->tls_user) ==
			       sizeof(((struct tls_params *)0)->psk_user),
	       "what a URI holds fits");

/*
 * Fills in credentials that no option names: from the URI, then from the directory that is given,
 * then from the usual places, the user's before the system's.
 */
static int find_credentials(struct settings *s, struct err *e)
{
	const struct uri *where = &s->servers[0];
	const char *home = getenv("HOME");
	struct tls_params *t = &s->tls;
	char dir[TLS_PATH_MAX];

	/* An option wins over a parameter of the URI. */
	if (!t->hostname[0])
		memcpy(t->hostname, where->tls_hostname, sizeof(t->hostname));
	if (!t->psk_file[0])
		memcpy(t->psk_file, where->tls_psk_file, sizeof(t->psk_file));
	if (!t->psk_user[0])
		memcpy(t->psk_user, where->tls_user, sizeof(t->psk_user));
	if (t->directory[0])
		return tls_use_directory(t, t->directory, e);
	if (where->tls_certificates[0])
		return tls_use_directory(t, where->tls_certificates, e);
	if (t->ca[0] || t->cert[0] || t->psk_file[0] || t->no_verify)
		return 0;
	if (home && (size_t)snprintf(dir, sizeof(dir), "%s/.pki/nbd", home) < sizeof(dir) &&
	    !access(dir, X_OK))
		return tls_use_directory(t, dir, e);
	if (!access("/etc/pki/nbd", X_OK))
		return tls_use_directory(t, "/etc/pki/nbd", e);
	return 0;
}

/* The process that reconnects later has another working directory. */
static int make_absolute(char *path, size_t cap, struct err *e)
{
	char dir[4096], whole[8192];

	if (!path[0] || path[0] == '/' || !strncmp(path, "pkcs11:", 7))
		return 0;
	if (!getcwd(dir, sizeof(dir)))
		return err_sys(e, ERR_FAILED, errno, "the working directory");
	if ((size_t)snprintf(whole, sizeof(whole), "%s/%s", dir, path) >= cap)
		return err_set(e, ERR_USAGE, ENAMETOOLONG, "%s/%s: more than %zu bytes", dir, path,
			       cap - 1);
	memcpy(path, whole, strlen(whole) + 1);
	return 0;
}

static int make_paths_absolute(struct settings *s, struct err *e)
{
	int ret = 0;

	for (const struct settings_row *row = settings_rows; !ret && row->name; row++)
		if (row->type == SETTINGS_FILE)
			ret = make_absolute((char *)s + row->offset, row->max + 1, e);
	for (unsigned i = 0; !ret && i < s->server_count; i++)
		ret = make_absolute(s->servers[i].path, sizeof(s->servers[i].path), e);
	return ret;
}

void cmd_name_flags(uint16_t flags, char *buf, size_t cap)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned bit = 0; bit < 16 && n < cap; bit++) {
		const char *name = wire_flag_name(bit);

		if (!(flags & 1U << bit))
			continue;
		if (name)
			n += (size_t)snprintf(buf + n, cap - n, "%s%s", n ? "," : "", name);
		else
			n += (size_t)snprintf(buf + n, cap - n, "%sbit%u", n ? "," : "", bit);
	}
}

static void add_context(void *ctx, const struct neg_item *item)
{
	struct cmd_facts *f = ctx;
	size_t len = strlen(f->contexts);
	char *longer;

	if (f->failed)
		return;
	longer = realloc(f->contexts, len + strlen(item->name) + 2);
	f->failed = !longer;
	if (f->failed)
		return;
	sprintf(longer + len, "%s%s", len ? "," : "", item->name);
	f->contexts = longer;
}

int cmd_find_out(struct connector *l, const struct settings *s, struct cmd_facts *f, struct err *e)
{
	struct connect_attempt a = {
		.goal = NEG_GOAL_INFO,
		.timeout_ms = s->connect_timeout_ms,
		.cancel_fd = -1,
	};
	struct export first;
	int ret;

	memset(f, 0, sizeof(*f));
	f->contexts = calloc(1, 1);
	if (!f->contexts)
		return err_sys(e, ERR_FAILED, ENOMEM, "ask");
	ret = connect_run(l, &a, add_context, f, &f->link, e);
	if (ret)
		return ret;
	if (f->failed)
		return err_sys(e, ERR_FAILED, ENOMEM, "list meta contexts");
	if (!f->link.export.has_contexts) {
		free(f->contexts);
		f->contexts = NULL;
	}
	if (f->link.export.size)
		return 0;
	/*
	 * nbd-server answers NBD_OPT_INFO before it opens the export, with a size of 0; NBD_OPT_GO
	 * makes it look.
	 */
	first = f->link.export;
	a.goal = NEG_GOAL_GO;
	ret = connect_run(l, &a, NULL, NULL, &f->link, e);
	if (ret)
		return ret;
	connections_close(&f->link, false);
	f->link.export.structured = first.structured;
	f->link.export.has_contexts = first.has_contexts;
	f->link.export.listed = first.listed;
	return 0;
}

void cmd_forget(struct cmd_facts *f)
{
	free(f->contexts);
	f->contexts = NULL;
}

void cmd_warn_unverified(const struct settings *s)
{
	if (s->servers[0].tls && s->tls.no_verify)
		fprintf(stderr, "nbd-attach: the server's certificate is not verified: anybody in "
				"between can read and change all data\n");
}

int cmd_prepare_settings(struct settings *s, struct err *e)
{
	if (s->multi.automatic)
		s->multi.wanted = settings_automatic_connections(s, sysconf(_SC_NPROCESSORS_ONLN));
	if (s->servers[0].tls && find_credentials(s, e))
		return -e->code;
	cmd_warn_unverified(s);
	return make_paths_absolute(s, e);
}

int cmd_each(const struct opts *o,
	     int (*act)(const struct opts *o, const char *operand, struct err *e), struct err *e)
{
	struct err this;
	int ret = 0;

	for (unsigned i = 0; i < o->device_count; i++) {
		if (!act(o, o->devices[i], &this))
			continue;
		if (!ret) {
			*e = this;
			ret = -this.code;
		} else {
			fprintf(stderr, "nbd-attach: %s\n", this.text);
		}
	}
	return ret;
}

/* A supervisor has no standard error. An initramfs has no system's log. */
static void log_line(void *ctx, enum log_level level, const char *text)
{
	char line[1024 + 64];
	int kmsg, n;

	(void)ctx;
	if (!access("/dev/log", W_OK)) {
		syslog(LOG_DAEMON | (int)level, "%s", text);
		return;
	}
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (kmsg < 0)
		return;
	/* One write is one line. dprintf would seek, which /dev/kmsg refuses. */
	n = snprintf(line, sizeof(line), "<%d>nbd-attach[%d]: %s\n", LOG_DAEMON | (int)level,
		     (int)getpid(), text);
	if (n > 0 && write(kmsg, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
		n = 0; /* nowhere is left to report it */
	close(kmsg);
}

const struct log cmd_logger = { .line = log_line };

static int read_all(int fd, size_t max, struct cmd_file *f)
{
	struct stat st;
	ssize_t n = 1;

	if (fstat(fd, &st))
		return errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? EISDIR : EBADFD;
	f->text = malloc(max);
	if (!f->text)
		return ENOMEM;
	while (n && f->len < max) {
		n = read(fd, f->text + f->len, max - f->len);
		if (n < 0 && errno != EINTR)
			return errno;
		f->len += n > 0 ? (size_t)n : 0;
	}
	return n ? EFBIG : 0;
}

int cmd_read_file(struct cmd_file *f, size_t max, struct err *e)
{
	int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int code = fd < 0 ? errno : read_all(fd, max, f);

	if (fd >= 0)
		close(fd);
	return code ? err_sys(e, ERR_FAILED, code, "read %s", f->path) : 0;
}
