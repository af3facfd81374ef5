/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker: the processes around an attach. A child does the work, the caller waits for its report;
 * either notices the death of the other and takes back what is half done, so that no kill at any
 * moment leaves a half-attached device. The child stays as the supervisor, or, of a --command, as the parent
 * that the command needs, until the device or the command is gone.
 */
#ifndef NBD_ATTACH_WORKER_H
#define NBD_ATTACH_WORKER_H

#include "attach.h"
#include "err.h"
#include "logger.h"
#include "supervise.h"

struct worker_request {
	struct attach_request attach;
	struct supervise_options care; /* for attach.supervise */
	const struct logger *logger;   /* of the supervisor, once it is on its own */
};

/*
 * attach_run in a child of its own. SIGINT, SIGTERM and SIGHUP to the caller are taken as the
 * wish to give up: -EINTR when nothing is attached any more.
 */
int worker_attach(const struct worker_request *rq, struct attach_result *r, struct err *e);

/* The same for a device that is attached: adopt_run in a child, which is its supervisor when this returns 0. */
int worker_adopt(const struct worker_request *rq, struct err *e);

#endif
