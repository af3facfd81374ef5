/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker.h"

int cmd_attach(const struct opts *o, struct err *e)
{
	struct attach_request *rq = calloc(1, sizeof(*rq));
	struct attach_result r;
	int ret;

	if (!rq)
		return err_sys(e, ERR_FAILED, ENOMEM, "begin");
	rq->find = o->find;
	rq->index = o->index;
	rq->plan.read_only = o->read_only;
	rq->plan.block_size = o->block_size;
	rq->plan.timeout_s = o->timeout_s;
	rq->plan.dead_timeout_s = o->dead_timeout_s;
	ret = cmd_link_request(o, NEG_GOAL_GO, &rq->link, e);
	if (!ret)
		ret = worker_attach(rq, &r, e);
	free(rq);
	if (ret)
		return ret;
	if (r.already)
		fprintf(stderr, "nbd-attach: /dev/nbd%u is attached to this export already\n", r.index);
	if (r.made_read_only)
		fprintf(stderr, "nbd-attach: the export is read-only, and so is /dev/nbd%u\n", r.index);
	if (o->show)
		printf("/dev/nbd%u\n", r.index);
	return 0;
}
