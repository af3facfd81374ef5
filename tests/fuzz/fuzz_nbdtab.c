/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is an nbdtab. Every line ends in words or in an error that can be shown; the words are
 * within the entry, one after the other; and what nbdtab_find says of a device is what its line
 * says.
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

static size_t word(const struct nbdtab_entry *en, const char *w, size_t at)
{
	require(w == en->text + at);
	require(memchr(w, '\0', sizeof(en->text) - at) != NULL);
	return at + strlen(w) + 1;
}

static void check_entry(const struct nbdtab_entry *en)
{
	size_t at = 0;

	require(en->has_device && en->line);
	require(en->option_count <= NBDTAB_OPTIONS_MAX);
	require(en->operand_count >= 2 && en->operand_count <= NBDTAB_SERVERS_MAX + 1);
	for (unsigned i = 0; i < en->option_count; i++) {
		require(!strncmp(en->options[i], "--", 2));
		at = word(en, en->options[i], at);
	}
	for (unsigned i = 0; i < en->operand_count; i++)
		at = word(en, en->operands[i], at);
	require(at == en->used);
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
		require(found->line == en->line && found->used == en->used);
		require(!memcmp(found->text, en->text, en->used));
		check_entry(found);
	}
	require(t.at == size);
	free(text);
	free(en);
	free(found);
	return 0;
}
