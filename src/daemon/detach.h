/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * detach: the end of an attachment, without loss of data unless forced, and never waiting for ever
 * for a server that is silent.
 */
#ifndef NBD_ATTACH_DETACH_H
#define NBD_ATTACH_DETACH_H

#include <stdbool.h>

#include "base/err.h"

struct detach_request {
	unsigned index;
	bool force;          /* also when in use, and without the last flush if need be */
	unsigned silence_ms; /* the server is silent when no request is finished for so long */
};

struct detach_result {
	bool in_use;    /* forced: somebody still has the device open, it goes when that ends */
	bool unflushed; /* forced: what was not written is lost */
};

/*
 * Claims the device (O_EXCL: not mounted anywhere, no swap, no holder), makes sure that nobody else has it open, writes out and
 * flushes what is cached, disconnects, and waits until the device and its partitions are gone.
 * ERR_ABSENT (-ENODEV): not attached. ERR_BUSY (-EBUSY): in use, the text says by whom. ERR_UNREACHABLE (-ETIMEDOUT): the
 * server is silent; nothing was changed. ERR_FAILED: the flush failed; nothing was changed. The last three
 * do not stop a forced detach.
 */
int detach_run(const struct detach_request *rq, struct detach_result *r, struct err *e);

#endif
