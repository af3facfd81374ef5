/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * detach: the end of an attachment, without loss of data unless forced, and never waiting for ever
 * for a server that is silent. Only the attachment that stands there when it begins is ended: the
 * device may be somebody else's before it has done.
 */
#ifndef NBD_ATTACH_DETACH_H
#define NBD_ATTACH_DETACH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "kernel/sysfs.h"

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
 * Makes sure that nobody uses the device (O_EXCL: not mounted anywhere, no swap, no holder; nor
 * open), writes out and flushes what is cached, disconnects, and waits until the device and its
 * partitions are gone. ERR_ABSENT (-ENODEV): not attached. ERR_BUSY: in use (-EBUSY), the text says
 * by whom; or attached anew meanwhile (-ESTALE). ERR_UNREACHABLE (-ETIMEDOUT): the server is
 * silent; nothing was changed. ERR_FAILED: the flush failed; nothing was changed. Use, silence and
 * the flush do not stop a forced detach.
 *
 * A process that waits for a silent server cannot be ended, but holds no claim on the device.
 */
int detach_run(const struct detach_request *rq, struct detach_result *r, struct err *e);

/*
 * Disconnects an attachment whose connection is lost for good, without a flush, if nobody uses it.
 * -EBUSY (ERR_BUSY), the text says by whom; or as device_disconnect.
 */
int detach_unused(const struct sysfs_identity *id, struct err *e);

/* Says who uses the device, as in struct device_users; "" for nobody, and where nobody can say. */
void detach_find_users(unsigned index, char *buf, size_t cap);

#endif
