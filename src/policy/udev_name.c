/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/udev_name.h"

#include "base/text.h"

void udev_name_of(const struct uri *u, char *buf)
{
	static const char plain[] = "#+-.:=@_";
	char full[4 * (URI_HOST_MAX + URI_EXPORT_MAX) + URI_PORT_MAX + sizeof("vsock::-")];
	struct text_writer w = { .dst = full, .cap = sizeof(full) };

	if (u->transport == URI_UNIX) {
		text_put_hex(&w, u->path, plain);
	} else {
		text_put(&w, u->transport == URI_VSOCK ? "vsock:" : "");
		text_put_hex(&w, u->host, plain);
		text_put(&w, ":");
		text_put_hex(&w, u->port, plain);
	}
	text_put(&w, u->export[0] ? "-" : "");
	text_put_hex(&w, u->export, plain);
	text_cut_and_hash(buf, UDEV_NAME_MAX, full, '=', '\\');
}
