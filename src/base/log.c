/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_say(const struct log *l, enum log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!l || !l->line)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	l->line(l->ctx, level, text);
}
