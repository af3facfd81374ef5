/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * The input is an nbdtab. Every line becomes settings or an error that can be shown; the settings,
 * written as texts and read again, are the same; and what nbdtab_find says of a device is what its
 * line says.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "policy/nbdtab.h"
#include "base/text.h"

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_error(const struct err *e)
{
	require(e->code && e->text[0] && text_is_utf8(e->text, strlen(e->text)));
	for (const char *p = e->text; *p; p++)
		require((unsigned char)*p >= 0x20 && *p != 0x7f);
}

/* But for parameters of TLS in URIs, which are no part of the text. */
static void forget_parameters(struct uri *u)
{
	memset(u->tls_hostname, 0, sizeof(u->tls_hostname));
	memset(u->tls_psk_file, 0, sizeof(u->tls_psk_file));
	memset(u->tls_certificates, 0, sizeof(u->tls_certificates));
	memset(u->tls_user, 0, sizeof(u->tls_user));
}

static void check_entry(struct nbdtab_entry *en)
{
	static struct settings again;
	static char value[SETTINGS_VALUE_MAX];
	struct err e;

	require(en->has_device && en->line);
	require(en->settings.server_count >= 1);
	require(en->settings.server_count <= SETTINGS_SERVERS_MAX);
	settings_init(&again);
	for (const struct settings_row *row = settings_rows; row->name; row++)
		for (unsigned i = 0; settings_get(&en->settings, row, i, value, sizeof(value)); i++)
			require(!settings_set(&again, row, row->name, value, &e));
	for (unsigned i = 0; i < en->settings.server_count; i++)
		forget_parameters(&en->settings.servers[i]);
	again.given = en->settings.given;
	require(!memcmp(&again, &en->settings, sizeof(again)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size ? size : 1);
	struct nbdtab_entry *en = malloc(sizeof(*en));
	struct nbdtab_entry *found = malloc(sizeof(*found));
	struct nbdtab t = { .text = text, .len = size };
	struct err e;
	int ret;

	require(text && en && found);
	if (size)
		memcpy(text, data, size);
	while ((ret = nbdtab_next(&t, en, &e)) != 0) {
		require(en->line == t.line);
		if (ret < 0) {
			require(ret == -EINVAL && e.kind == ERR_USAGE);
			check_error(&e);
		} else {
			require(ret == 1);
			check_entry(en);
		}
		if (!en->has_device || t.line > 64)
			continue;
		ret = nbdtab_find(text, size, en->index, found, &e);
		require(ret == 0 || ret == -EINVAL);
		if (ret) {
			check_error(&e);
			continue;
		}
		require(found->line == en->line);
		check_entry(found);
		require(!memcmp(&found->settings, &en->settings, sizeof(en->settings)));
	}
	require(t.at == size);
	free(text);
	free(en);
	free(found);
	return 0;
}
