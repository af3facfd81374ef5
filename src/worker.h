/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker: the processes around an attach. A child does the work, the caller waits for its report;
 * either notices the death of the other and takes back what is half done, so that no kill at any
 * moment leaves a half-attached device. The child of a --command stays, as the parent that the
 * command needs, until the command ends.
 */
#ifndef NBD_ATTACH_WORKER_H
#define NBD_ATTACH_WORKER_H

#include "attach.h"
#include "err.h"

/*
 * attach_run in a child of its own. SIGINT, SIGTERM and SIGHUP to the caller are taken as the
 * wish to give up: -EINTR when nothing is attached any more.
 */
int worker_attach(const struct attach_request *rq, struct attach_result *r, struct err *e);

#endif
