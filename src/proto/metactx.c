/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/metactx.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "proto/wire.h"

/* Offset of name i in names; i = count: the end of the last. */
static size_t begin_of(const struct metactx *c, unsigned i)
{
	size_t at = 0;

	while (i-- && at < sizeof(c->names))
		at += strnlen(c->names + at, sizeof(c->names) - at) + 1;
	return at;
}

static unsigned count_of(const struct metactx *c)
{
	return c->count < METACTX_MAX ? c->count : METACTX_MAX;
}

const char *metactx_name(const struct metactx *c, unsigned i)
{
	size_t at = begin_of(c, i);

	if (i >= count_of(c) || at >= sizeof(c->names) ||
	    !memchr(c->names + at, '\0', sizeof(c->names) - at))
		return "";
	return c->names + at;
}

int metactx_find(const struct metactx *c, const char *name)
{
	for (unsigned i = 0; i < count_of(c); i++)
		if (!strcmp(metactx_name(c, i), name))
			return (int)i;
	return -1;
}

/*
 * "The namespace must consist entirely of printable non-whitespace UTF-8 characters other than
 * colons"
 */
static bool is_name(const char *name, size_t len)
{
	const char *colon = memchr(name, ':', len);

	if (!colon || colon == name || !text_is_utf8(name, len))
		return false;
	for (const char *p = name; p < colon; p++)
		if ((unsigned char)*p <= ' ' || *p == '\x7f')
			return false;
	return true;
}

int metactx_add(struct metactx *c, const char *name, size_t len, struct err *e)
{
	size_t at = begin_of(c, count_of(c));
	char shown[256], copy[NBD_MAX_STRING + 1];

	text_escape(shown, sizeof(shown), name, len);
	if (!is_name(name, len))
		return err_set(e, ERR_USAGE, EINVAL,
			       "\"%s\" is no meta context: a name like "
			       "base:allocation or qemu:dirty-bitmap:NAME is needed",
			       shown);
	if (len > NBD_MAX_STRING || c->count >= METACTX_MAX || at > sizeof(c->names) ||
	    len >= sizeof(c->names) - at)
		return err_set(e, ERR_USAGE, E2BIG,
			       "meta context \"%s\" is too long or one too many: "
			       "there may be %d of %d bytes together",
			       shown, METACTX_MAX, METACTX_BYTES - METACTX_MAX);
	memcpy(copy, name, len);
	copy[len] = '\0';
	if (metactx_find(c, copy) >= 0)
		return err_set(e, ERR_USAGE, EEXIST, "meta context \"%s\" is given twice", shown);
	memcpy(c->names + at, copy, len + 1);
	c->count++;
	return 0;
}

static void describe_allocation(uint32_t flags, char *text)
{
	static const char *const words[] = {
		[0] = "data",
		[NBD_STATE_HOLE] = "hole",
		[NBD_STATE_ZERO] = "zero",
		[NBD_STATE_HOLE | NBD_STATE_ZERO] = "hole,zero",
	};

	strcpy(text, words[flags & (NBD_STATE_HOLE | NBD_STATE_ZERO)]);
}

static void describe_bitmap(uint32_t flags, char *text)
{
	strcpy(text, flags & NBD_STATE_DIRTY ? "dirty" : "clean");
}

/* Not flags, but the position of the data in the chain of backing files, from 1 on. */
static void describe_depth(uint32_t depth, char *text)
{
	if (depth < 2)
		strcpy(text, depth ? "local" : "absent");
	else
		snprintf(text, METACTX_TEXT_MAX, "backing depth %u", depth);
}

int metactx_describe(const char *name, uint32_t flags, char text[METACTX_TEXT_MAX])
{
	static const struct {
		const char *name;
		bool prefix; /* name is the beginning of the context's name */
		void (*describe)(uint32_t flags, char *text);
	} known[] = {
		{ "base:allocation", false, describe_allocation },
		{ "qemu:dirty-bitmap:", true, describe_bitmap },
		{ "qemu:allocation-depth", false, describe_depth },
	};

	text[0] = '\0';
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strncmp(name, known[i].name, strlen(known[i].name)) ||
		    (!known[i].prefix && strcmp(name, known[i].name)))
			continue;
		known[i].describe(flags, text);
		return 0;
	}
	return -ENOENT;
}
