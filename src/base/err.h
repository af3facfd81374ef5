/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * err: one error, set where the failure is known, given context on the way up and printed by the
 * command line only. A struct err belongs to the caller, is flat and may be sent through a pipe. No
 * function here fails, allocates or prints.
 */
#ifndef NBD_ATTACH_ERR_H
#define NBD_ATTACH_ERR_H

#include <stddef.h>

/* Kinds of failure that a script may want to distinguish; each has its own exit status. */
enum err_kind {
	ERR_NONE,
	ERR_FAILED,      /* anything without a kind of its own */
	ERR_USAGE,       /* the command line or a URI is wrong */
	ERR_UNREACHABLE, /* no server: name, route, refused, silent, hung up, deadline */
	ERR_REFUSED,     /* the server refuses the request */
	ERR_PROTOCOL,    /* the server breaks the protocol */
	ERR_TLS,         /* TLS is missing, demanded or failed */
	ERR_BUSY,        /* the device is in use, or attached to another export */
	ERR_ABSENT,      /* the device is not attached */
	ERR_KERNEL,      /* no nbd driver, no privilege, no such device */
	ERR_MULTI,       /* several connections would not be safe, or the server's answers differ */
};

struct err {
	int code; /* positive errno, 0 when nothing failed */
	enum err_kind kind;
	char text[1024];
};

void err_clear(struct err *e);

/* Sets the text and the code (a positive errno). Returns -code. */
int err_set(struct err *e, enum err_kind kind, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* As err_set, with ": " and strerror(code) at the end. */
int err_sys(struct err *e, enum err_kind kind, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * Puts "context: " before the text; kind and code stay. What does not fit is cut at the end.
 * Returns -code.
 */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
