/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nbdnl.h"

#include <errno.h>
#include <linux/nbd.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdlib.h>

struct nbdnl {
	struct nl_sock *sk;
	int family;
};

static int build(struct nl_msg *m, int family, uint8_t command)
{
	return genlmsg_put(m, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command,
			   NBD_GENL_VERSION) ? 0 : -ENOMEM;
}

static int put_sockets(struct nl_msg *m, const int *sockets, unsigned count)
{
	struct nlattr *list, *item;

	list = nla_nest_start(m, NBD_ATTR_SOCKETS);
	if (!list)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		item = nla_nest_start(m, NBD_SOCK_ITEM);
		if (!item || nla_put_u32(m, NBD_SOCK_FD, (uint32_t)sockets[i]))
			return -ENOMEM;
		nla_nest_end(m, item);
	}
	nla_nest_end(m, list);
	return 0;
}

int nbdnl_build_connect(struct nl_msg *m, int family, const struct nbdnl_connect *c)
{
	const struct plan *p = c->plan;
	uint64_t client_flags = c->destroy ? NBD_CFLAG_DESTROY_ON_DISCONNECT : 0;

	if (build(m, family, NBD_CMD_CONNECT))
		return -ENOMEM;
	if (c->index != NBDNL_ANY_INDEX && nla_put_u32(m, NBD_ATTR_INDEX, (uint32_t)c->index))
		return -ENOMEM;
	if (nla_put_u64(m, NBD_ATTR_SIZE_BYTES, p->size) ||
	    nla_put_u64(m, NBD_ATTR_BLOCK_SIZE_BYTES, p->block_size) ||
	    nla_put_u64(m, NBD_ATTR_TIMEOUT, p->timeout_s) ||
	    nla_put_u64(m, NBD_ATTR_DEAD_CONN_TIMEOUT, p->dead_timeout_s) ||
	    nla_put_u64(m, NBD_ATTR_SERVER_FLAGS, p->server_flags) ||
	    nla_put_u64(m, NBD_ATTR_CLIENT_FLAGS, client_flags))
		return -ENOMEM;
	if (p->backend[0] && nla_put_string(m, NBD_ATTR_BACKEND_IDENTIFIER, p->backend))
		return -ENOMEM;
	return put_sockets(m, c->sockets, c->count);
}

int nbdnl_build_disconnect(struct nl_msg *m, int family, uint32_t index)
{
	if (build(m, family, NBD_CMD_DISCONNECT) || nla_put_u32(m, NBD_ATTR_INDEX, index))
		return -ENOMEM;
	return 0;
}

int nbdnl_parse_connect(struct nlmsghdr *h, uint32_t *index)
{
	static const struct nla_policy policy[NBD_ATTR_MAX + 1] = {
		[NBD_ATTR_INDEX] = { .type = NLA_U32 },
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];

	if (!genlmsg_valid_hdr(h, 0) || genlmsg_hdr(h)->cmd != NBD_CMD_CONNECT ||
	    genlmsg_parse(h, 0, attrs, NBD_ATTR_MAX, policy) || !attrs[NBD_ATTR_INDEX])
		return -EBADMSG;
	*index = nla_get_u32(attrs[NBD_ATTR_INDEX]);
	return 0;
}

int nbdnl_open(struct nbdnl **out, struct err *e)
{
	struct nbdnl *nl = calloc(1, sizeof(*nl));
	int ret;

	*out = NULL;
	if (!nl)
		return err_sys(e, ERR_FAILED, ENOMEM, "netlink");
	nl->sk = nl_socket_alloc();
	if (!nl->sk) {
		free(nl);
		return err_sys(e, ERR_FAILED, ENOMEM, "netlink");
	}
	ret = genl_connect(nl->sk);
	if (ret) {
		ret = err_set(e, ERR_KERNEL, EIO, "open generic netlink: %s", nl_geterror(ret));
		goto fail;
	}
	nl->family = genl_ctrl_resolve(nl->sk, NBD_GENL_FAMILY_NAME);
	if (nl->family < 0) {
		ret = err_set(e, ERR_KERNEL, ENOENT,
			      "the kernel has no generic netlink family \"nbd\": its nbd driver is not "
			      "loaded, or older than 4.12");
		goto fail;
	}
	*out = nl;
	return 0;
fail:
	nbdnl_close(nl);
	return ret;
}

void nbdnl_close(struct nbdnl *nl)
{
	if (!nl)
		return;
	nl_socket_free(nl->sk);
	free(nl);
}

struct answer {
	int code; /* 0 or -errno of the kernel */
	bool done;
	bool has_index;
	uint32_t index;
};

static int on_error(struct sockaddr_nl *peer, struct nlmsgerr *error, void *arg)
{
	struct answer *a = arg;

	(void)peer;
	a->code = error->error;
	a->done = true;
	return NL_STOP;
}

static int on_ack(struct nl_msg *m, void *arg)
{
	struct answer *a = arg;

	(void)m;
	a->done = true;
	return NL_STOP;
}

static int on_valid(struct nl_msg *m, void *arg)
{
	struct answer *a = arg;

	if (!nbdnl_parse_connect(nlmsg_hdr(m), &a->index))
		a->has_index = true;
	return NL_OK;
}

/*
 * Sends m and waits for the kernel's verdict, with its errno as it is (nl_send_sync would fold it
 * into libnl's own codes). Returns -EPROTO when libnl could not send or read.
 */
static int call(struct nbdnl *nl, struct nl_msg *m, struct answer *a)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int ret;

	a->code = 0;
	a->done = false;
	a->has_index = false;
	if (!cb)
		return -ENOMEM;
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, a);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, a);
	ret = nl_send_auto(nl->sk, m);
	while (ret >= 0 && !a->done)
		ret = nl_recvmsgs(nl->sk, cb);
	nl_cb_put(cb);
	return a->done ? a->code : -EPROTO;
}

int nbdnl_connect(struct nbdnl *nl, const struct nbdnl_connect *c, uint32_t *index, struct err *e)
{
	struct nl_msg *m = nlmsg_alloc();
	struct answer a;
	int ret = m ? nbdnl_build_connect(m, nl->family, c) : -ENOMEM;

	if (!ret)
		ret = call(nl, m, &a);
	nlmsg_free(m);
	if (ret)
		return err_sys(e, ret == -EBUSY ? ERR_BUSY : ERR_KERNEL, -ret,
			       "hand the connection to the kernel (NBD_CMD_CONNECT)");
	if (!a.has_index)
		return err_set(e, ERR_KERNEL, EPROTO,
			       "the kernel took the connection but named no device");
	*index = a.index;
	return 0;
}

int nbdnl_disconnect(struct nbdnl *nl, uint32_t index, struct err *e)
{
	struct nl_msg *m = nlmsg_alloc();
	struct answer a;
	int ret = m ? nbdnl_build_disconnect(m, nl->family, index) : -ENOMEM;

	if (!ret)
		ret = call(nl, m, &a);
	nlmsg_free(m);
	if (ret)
		return err_sys(e, ERR_KERNEL, -ret, "disconnect (NBD_CMD_DISCONNECT)");
	return 0;
}
