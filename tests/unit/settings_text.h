/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * Settings as one line of words, to be compared with what is expected: options in the order of the
 * table, "--read-only --block-size=512", and last the servers by their URIs.
 */
#ifndef NBD_ATTACH_SETTINGS_TEXT_H
#define NBD_ATTACH_SETTINGS_TEXT_H

#include <stdio.h>
#include <string.h>

#include "policy/settings.h"

enum { SETTINGS_LINE_MAX = 65536 };

static inline void settings_line(const struct settings *s, char line[SETTINGS_LINE_MAX])
{
	char value[SETTINGS_VALUE_MAX];
	size_t used = 0;

	line[0] = '\0';
	for (const struct settings_row *row = settings_rows; row->name; row++) {
		for (unsigned i = 0; settings_get(s, row, i, value, sizeof(value)); i++)
			used += (size_t)snprintf(line + used, SETTINGS_LINE_MAX - used,
						 "%s%s%s%s%s", used ? " " : "",
						 row->help ? "--" : "", row->help ? row->name : "",
						 row->help && row->argument ? "=" : "",
						 row->help && !row->argument ? "" : value);
	}
}

#endif
