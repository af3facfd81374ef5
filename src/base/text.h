/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * text: characters from people and from servers. A server's text is hostile until text_escape has
 * made it safe for a terminal, a log or an error message; a user's numbers go through one strict
 * parser. Never allocates and does no I/O.
 */
#ifndef NBD_ATTACH_TEXT_H
#define NBD_ATTACH_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Copies len bytes of src to dst (cap bytes, always NUL-terminated, cap > 0). Valid UTF-8 is kept
 * but for what can move a cursor, hide or reorder text: C0 and C1 controls, DEL, U+2028, U+2029,
 * U+FFF9..U+FFFB and everything that Unicode 15 calls Default_Ignorable_Code_Point (controls of
 * direction, joiners, variation selectors, tags and more). Each byte of those, and bytes that are
 * not UTF-8, become \xnn; a backslash becomes two. What does not fit is cut between two characters
 * and ends in "..." (in as many dots as fit when cap is below 4). Returns the number of bytes in
 * dst without the NUL.
 */
size_t text_escape(char *dst, size_t cap, const void *src, size_t len);

/* A text being written to a buffer of the caller. Characters that do not fit are dropped. */
struct text_writer {
	char *dst;
	size_t cap; /* bytes, above 0 */
	size_t len; /* bytes in dst without the NUL, at first 0 */
};

/* Appends s. dst is NUL-terminated after each of the text_put functions. */
void text_put(struct text_writer *w, const char *s);

/*
 * Append s, with each byte written as %XX (text_put_percent) or \xnn (text_put_hex) that is neither
 * an ASCII letter or digit nor one of the characters in plain.
 */
void text_put_percent(struct text_writer *w, const char *s, const char *plain);
void text_put_hex(struct text_writer *w, const char *s, const char *plain);

/*
 * Copies src to dst (max + 1 bytes, max above 20). A text longer than max is cut and ends in the
 * character mark and a hash of the whole (FNV-1a, 64 bits, hex), so that it differs from others
 * that begin alike; against an attacker the hash is no help. The cut does not split an escape,
 * which is 4 bytes and begins with the character escape (NUL: there are none).
 */
void text_cut_and_hash(char *dst, size_t max, const char *src, char mark, char escape);

/*
 * Copies len bytes of a JSON document to dst (6 * len + 1 bytes, NUL-terminated), which stays the
 * same document: what text_escape would not show becomes \uNNNN. In JSON as it is made here such
 * characters are in strings only. Bytes that are not UTF-8 are copied. Returns the bytes in dst.
 */
size_t text_guard_json(char *dst, const char *src, size_t len);

/* True when the len bytes are UTF-8 as RFC 3629 has it (no surrogate, nothing overlong), no NUL. */
bool text_is_utf8(const void *src, size_t len);

/*
 * A whole string as a number from min to max: decimal digits only, no sign and no space. With
 * suffixes, K, M, G, T, P and E (powers of 1024, either case, optionally followed by "iB") are
 * taken. Returns 0, -EINVAL when it is no number, -ERANGE when it is outside the limits; *value is
 * set by success only.
 */
int text_number(const char *s, bool suffixes, uint64_t min, uint64_t max, uint64_t *value);

/*
 * A duration in seconds as a whole or decimal number ("30", "0.5", at most three decimals), in
 * milliseconds. Returns as text_number.
 */
int text_seconds(const char *s, uint64_t min_ms, uint64_t max_ms, uint64_t *ms);

/*
 * The number of an nbd device from "nbd3" or "/dev/nbd3" (no leading zeros, below 2^20, the
 * kernel's limit of minors). Returns 0, or -EINVAL for anything else, partitions too; *index is set
 * by success only.
 */
int text_nbd_index(const char *s, unsigned *index);

#endif
