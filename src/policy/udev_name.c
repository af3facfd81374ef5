/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy/udev_name.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct udev_name {
	char *buf;
	size_t len; /* of the whole, also of what does not fit */
	uint64_t hash;
};

static void put(struct udev_name *a, char c)
{
	if (a->len < UDEV_NAME_MAX)
		a->buf[a->len] = c;
	a->len++;
	/* FNV-1a */
	a->hash = (a->hash ^ (unsigned char)c) * 0x100000001b3;
}

static void put_text(struct udev_name *a, const char *s)
{
	static const char digits[] = "0123456789abcdef";

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		    strchr("#+-.:=@_", c)) {
			put(a, (char)c);
			continue;
		}
		put(a, '\\');
		put(a, 'x');
		put(a, digits[c >> 4]);
		put(a, digits[c & 15]);
	}
}

void udev_name_of(const struct uri *u, char *buf)
{
	struct udev_name a = { .buf = buf, .hash = 0xcbf29ce484222325 };
	char suffix[20];
	size_t cut;

	if (u->transport == URI_UNIX) {
		put_text(&a, u->path);
	} else {
		if (u->transport == URI_VSOCK)
			put_text(&a, "vsock:");
		put_text(&a, u->host);
		put(&a, ':');
		put_text(&a, u->port);
	}
	if (u->export[0])
		put(&a, '-');
	put_text(&a, u->export);
	if (a.len <= UDEV_NAME_MAX) {
		buf[a.len] = '\0';
		return;
	}
	snprintf(suffix, sizeof(suffix), "=%016llx", (unsigned long long)a.hash);
	cut = UDEV_NAME_MAX - strlen(suffix);
	/* not in the middle of \xNN */
	for (size_t i = cut - 3; i < cut; i++)
		if (buf[i] == '\\')
			cut = i;
	strcpy(buf + cut, suffix);
}
