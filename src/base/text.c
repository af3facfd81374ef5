/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DOTS       "..."
#define DOTS_LEN   (sizeof(DOTS) - 1)
#define NBD_MINORS (1U << 20) /* MINORBITS, include/linux/kdev_t.h */

/*
 * Valid characters that a terminal draws as nothing, or obeys: controls, line and paragraph
 * separators, the interlinear annotation, and Default_Ignorable_Code_Point of Unicode 15.
 */
static const struct {
	uint32_t first, last;
} unsafe[] = {
	{ 0x0000, 0x001f },   { 0x007f, 0x009f },   { 0x00ad, 0x00ad },   { 0x034f, 0x034f },
	{ 0x061c, 0x061c },   { 0x115f, 0x1160 },   { 0x17b4, 0x17b5 },   { 0x180b, 0x180f },
	{ 0x200b, 0x200f },   { 0x2028, 0x202e },   { 0x2060, 0x206f },   { 0x3164, 0x3164 },
	{ 0xfe00, 0xfe0f },   { 0xfeff, 0xfeff },   { 0xffa0, 0xffa0 },   { 0xfff0, 0xfffb },
	{ 0x1bca0, 0x1bca3 }, { 0x1d173, 0x1d17a }, { 0xe0000, 0xe0fff },
};

static bool is_unsafe(uint32_t c)
{
	for (size_t i = 0; i < sizeof(unsafe) / sizeof(unsafe[0]); i++)
		if (c >= unsafe[i].first && c <= unsafe[i].last)
			return true;
	return false;
}

/* RFC 3629, section 4: the bytes (1 to 4) of the character at s, 0 when there is none. */
static size_t utf8_char(const unsigned char *s, size_t len, uint32_t *c)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {
		{ 0x80, 0x00, 0x0 },
		{ 0xe0, 0xc0, 0x80 },
		{ 0xf0, 0xe0, 0x800 },
		{ 0xf8, 0xf0, 0x10000 },
	};
	size_t n = 0;

	while (n < 4 && (s[0] & forms[n].mask) != forms[n].lead)
		n++;
	if (n == 4 || n >= len)
		return 0;
	*c = s[0] & (unsigned char)~forms[n].mask;
	for (size_t i = 1; i <= n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (s[i] & 0x3f);
	}
	if (*c < forms[n].least || (*c >= 0xd800 && *c <= 0xdfff) || *c > 0x10ffff)
		return 0;
	return n + 1;
}

bool text_is_utf8(const void *src, size_t len)
{
	const unsigned char *s = src;
	uint32_t c;

	for (size_t n; len > 0; s += n, len -= n) {
		n = utf8_char(s, len, &c);
		if (n == 0 || c == 0)
			return false;
	}
	return true;
}

/* Escapes one character, or one byte that is not part of any. Returns the bytes taken from s. */
static size_t escape_char(char out[17], size_t *outlen, const unsigned char *s, size_t len)
{
	uint32_t c = 0;
	size_t n = utf8_char(s, len, &c), used = 0;

	if (n > 0 && !is_unsafe(c)) {
		if (c == '\\')
			out[used++] = '\\';
		memcpy(out + used, s, n);
		*outlen = used + n;
		return n;
	}
	if (n == 0)
		n = 1;
	for (size_t i = 0; i < n; i++)
		used += (size_t)snprintf(out + used, 5, "\\x%02x", s[i]);
	*outlen = used;
	return n;
}

size_t text_escape(char *dst, size_t cap, const void *src, size_t len)
{
	const unsigned char *s = src;
	size_t room = cap - 1, used = 0;
	size_t cut = 0; /* end of the last character that leaves space for the dots */

	while (len > 0) {
		char piece[17];
		size_t n, taken = escape_char(piece, &n, s, len);

		if (n > room - used) {
			size_t dots = room < DOTS_LEN ? room : DOTS_LEN;

			memcpy(dst + cut, DOTS, dots);
			used = cut + dots;
			break;
		}
		memcpy(dst + used, piece, n);
		used += n;
		if (room - used >= DOTS_LEN)
			cut = used;
		s += taken;
		len -= taken;
	}
	dst[used] = '\0';
	return used;
}

void text_put(struct text_writer *w, const char *s)
{
	while (*s && w->len + 1 < w->cap)
		w->dst[w->len++] = *s++;
	w->dst[w->len] = '\0';
}

static bool is_plain(char c, const char *plain)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       strchr(plain, c);
}

void text_put_percent(struct text_writer *w, const char *s, const char *plain)
{
	char piece[8];

	for (; *s; s++) {
		snprintf(piece, sizeof(piece), is_plain(*s, plain) ? "%c" : "%%%02X",
			 (unsigned char)*s);
		text_put(w, piece);
	}
}

void text_put_hex(struct text_writer *w, const char *s, const char *plain)
{
	char piece[8];

	for (; *s; s++) {
		snprintf(piece, sizeof(piece), is_plain(*s, plain) ? "%c" : "\\x%02x",
			 (unsigned char)*s);
		text_put(w, piece);
	}
}

void text_cut_and_hash(char *dst, size_t max, const char *src, char mark, char escape)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	char suffix[24];
	size_t cut;

	if (strlen(src) <= max) {
		strcpy(dst, src);
		return;
	}
	for (const char *s = src; *s; s++)
		hash = (hash ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
	cut = max - (size_t)snprintf(suffix, sizeof(suffix), "%c%016" PRIx64, mark, hash);
	for (size_t i = cut - 3; i < cut; i++)
		if (src[i] == escape)
			cut = i;
	memcpy(dst, src, cut);
	strcpy(dst + cut, suffix);
}

size_t text_guard_json(char *dst, const char *src, size_t len)
{
	const unsigned char *s = (const unsigned char *)src;
	size_t used = 0;
	uint32_t c = 0;

	for (size_t n; len > 0; s += n, len -= n) {
		n = utf8_char(s, len, &c);
		if (n == 0 || c < 0x20 || !is_unsafe(c)) {
			n = n > 0 ? n : 1;
			memcpy(dst + used, s, n);
			used += n;
		} else if (c < 0x10000) {
			used += (size_t)snprintf(dst + used, 7, "\\u%04x", c);
		} else {
			/* RFC 8259, section 7: two halves of a UTF-16 pair */
			used += (size_t)snprintf(dst + used, 13, "\\u%04x\\u%04x",
						 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
		}
	}
	dst[used] = '\0';
	return used;
}

/* Reads digits and says whether their value is too large. NULL when there is not even one. */
static const char *read_digits(const char *s, uint64_t *value, bool *overflow)
{
	if (*s < '0' || *s > '9')
		return NULL;
	*value = 0;
	*overflow = false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(*value, 10U, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(*s - '0'), value))
			*overflow = true;
	}
	return s;
}

int text_number(const char *s, bool suffixes, uint64_t min, uint64_t max, uint64_t *value)
{
	static const char letters[] = "KMGTPE";
	uint64_t v;
	bool overflow;

	s = read_digits(s, &v, &overflow);
	if (!s)
		return -EINVAL;
	if (suffixes && *s) {
		char upper = *s >= 'a' && *s <= 'z' ? (char)(*s - 'a' + 'A') : *s;
		const char *letter = strchr(letters, upper);

		if (!letter)
			return -EINVAL;
		if (__builtin_mul_overflow(v, UINT64_C(1) << 10 * (letter - letters + 1), &v))
			overflow = true;
		s++;
		if (strcmp(s, "iB") == 0)
			s += 2;
	}
	if (*s)
		return -EINVAL;
	if (overflow || v < min || v > max)
		return -ERANGE;
	*value = v;
	return 0;
}

int text_seconds(const char *s, uint64_t min_ms, uint64_t max_ms, uint64_t *ms)
{
	uint64_t v, part = 0;
	bool overflow;

	s = read_digits(s, &v, &overflow);
	if (!s)
		return -EINVAL;
	if (*s == '.') {
		uint64_t unit = 1000;

		do {
			s++;
			if (*s < '0' || *s > '9' || unit == 1)
				return -EINVAL;
			unit /= 10;
			part += (uint64_t)(*s - '0') * unit;
		} while (s[1]);
		s++;
	}
	if (*s)
		return -EINVAL;
	if (__builtin_mul_overflow(v, 1000U, &v) || __builtin_add_overflow(v, part, &v))
		overflow = true;
	if (overflow || v < min_ms || v > max_ms)
		return -ERANGE;
	*ms = v;
	return 0;
}

int text_nbd_index(const char *s, unsigned *index)
{
	static const char dev[] = "/dev/", name[] = "nbd";
	uint64_t v;

	if (strncmp(s, dev, sizeof(dev) - 1) == 0)
		s += sizeof(dev) - 1;
	if (strncmp(s, name, sizeof(name) - 1) != 0)
		return -EINVAL;
	s += sizeof(name) - 1;
	if ((s[0] == '0' && s[1]) || text_number(s, false, 0, NBD_MINORS - 1, &v) < 0)
		return -EINVAL;
	*index = (unsigned)v;
	return 0;
}
