/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void err_clear(struct err *e)
{
	e->code = 0;
	e->kind = ERR_NONE;
	e->text[0] = '\0';
}

static __attribute__((format(printf, 4, 0))) void err_format(struct err *e, enum err_kind kind,
							     int code, const char *fmt, va_list ap)
{
	e->kind = kind;
	e->code = code;
	/* A struct err is copied to other processes as a whole. */
	memset(e->text, 0, sizeof(e->text));
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
}

int err_set(struct err *e, enum err_kind kind, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_format(e, kind, code, fmt, ap);
	va_end(ap);
	return -code;
}

int err_sys(struct err *e, enum err_kind kind, int code, const char *fmt, ...)
{
	va_list ap;
	size_t used;

	va_start(ap, fmt);
	err_format(e, kind, code, fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %s", strerror(code));
	return -code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char old[sizeof(e->text)];
	va_list ap;
	size_t used;

	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %s", old);
	return -e->code;
}
