/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/nbdnl.h"

#include <errno.h>
#include <linux/nbd.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>

/* An answer repeats the whole command, which has a page at most. */
enum { ANSWER_MAX = 8192 };

struct nbdnl {
	struct nl_sock *sk;
	int family;
	struct nl_msg *m; /* the command, reused for each */
	_Alignas(struct nlmsghdr) char answer[ANSWER_MAX];
};

static int begin_message(struct nl_msg *m, int family, uint8_t command)
{
	return genlmsg_put(m, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command, NBD_GENL_VERSION) ?
		       0 :
		       -ENOMEM;
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

	if (begin_message(m, family, NBD_CMD_CONNECT))
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
	if (begin_message(m, family, NBD_CMD_DISCONNECT) || nla_put_u32(m, NBD_ATTR_INDEX, index))
		return -ENOMEM;
	return 0;
}

static int build_reconfigure(struct nl_msg *m, int family, uint32_t index, const char *backend)
{
	if (begin_message(m, family, NBD_CMD_RECONFIGURE) || nla_put_u32(m, NBD_ATTR_INDEX, index))
		return -ENOMEM;
	if (backend[0] && nla_put_string(m, NBD_ATTR_BACKEND_IDENTIFIER, backend))
		return -ENOMEM;
	return 0;
}

int nbdnl_build_offer(struct nl_msg *m, int family, uint32_t index, const char *backend, int fd)
{
	if (build_reconfigure(m, family, index, backend))
		return -ENOMEM;
	return put_sockets(m, &fd, 1);
}

int nbdnl_build_resize(struct nl_msg *m, int family, uint32_t index, const char *backend,
		       uint64_t size)
{
	if (build_reconfigure(m, family, index, backend))
		return -ENOMEM;
	return nla_put_u64(m, NBD_ATTR_SIZE_BYTES, size) ? -ENOMEM : 0;
}

int nbdnl_build_probe(struct nl_msg *m, int family, uint32_t index, const char *backend)
{
	return build_reconfigure(m, family, index, backend);
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

void nbdnl_parse_answer(void *datagram, size_t len, uint32_t seq, struct nbdnl_answer *a)
{
	struct nlmsghdr *h = datagram;
	int left = (int)len;

	for (; nlmsg_ok(h, left); h = nlmsg_next(h, &left)) {
		const struct nlmsgerr *error = nlmsg_data(h);

		if (h->nlmsg_seq != seq)
			continue;
		if (h->nlmsg_type != NLMSG_ERROR) {
			if (!nbdnl_parse_connect(h, &a->index))
				a->has_index = true;
		} else if (nlmsg_datalen(h) >= (int)sizeof(error->error)) {
			a->code = error->error;
			a->done = true;
		}
	}
}

int nbdnl_open(struct nbdnl **out, struct err *e)
{
	struct nbdnl *nl = calloc(1, sizeof(*nl));
	int ret;

	*out = NULL;
	if (!nl)
		return err_sys(e, ERR_FAILED, ENOMEM, "netlink");
	nl->sk = nl_socket_alloc();
	nl->m = nlmsg_alloc();
	if (!nl->sk || !nl->m) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "netlink");
		goto fail;
	}
	ret = genl_connect(nl->sk);
	if (ret) {
		ret = err_set(e, ERR_KERNEL, EIO, "open generic netlink: %s", nl_geterror(ret));
		goto fail;
	}
	nl->family = genl_ctrl_resolve(nl->sk, NBD_GENL_FAMILY_NAME);
	if (nl->family < 0) {
		ret = err_set(
			e, ERR_KERNEL, ENOENT,
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
	nlmsg_free(nl->m);
	free(nl);
}

/* The message, empty as nlmsg_alloc makes it. */
static struct nl_msg *empty_message(struct nbdnl *nl)
{
	nlmsg_hdr(nl->m)->nlmsg_len = NLMSG_HDRLEN;
	return nl->m;
}

/*
 * Sends the message, unless building it has failed with built, and reads the kernel's answer. Its
 * errno stays as it is (nl_send_sync would fold it into libnl's own codes). The command is over
 * when the send returns (genl_rcv_msg runs in it), so that the answer is there, or was lost for
 * lack of memory. -EPROTO when there is none.
 */
static int send_command(struct nbdnl *nl, int built, struct nbdnl_answer *a)
{
	int fd = nl_socket_get_fd(nl->sk);
	ssize_t n;

	*a = (struct nbdnl_answer){ 0 };
	if (built)
		return built;
	if (nl_send_auto(nl->sk, nl->m) < 0)
		return -EPROTO;
	while (!a->done) {
		n = recv(fd, nl->answer, sizeof(nl->answer), MSG_DONTWAIT);
		if (n >= 0)
			nbdnl_parse_answer(nl->answer, (size_t)n, nlmsg_hdr(nl->m)->nlmsg_seq, a);
		else if (errno != EINTR && errno != ENOBUFS)
			return -EPROTO;
	}
	return a->code;
}

int nbdnl_connect(struct nbdnl *nl, const struct nbdnl_connect *c, uint32_t *index, struct err *e)
{
	struct nbdnl_answer a;
	int ret = send_command(nl, nbdnl_build_connect(empty_message(nl), nl->family, c), &a);

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
	struct nbdnl_answer a;
	int ret =
		send_command(nl, nbdnl_build_disconnect(empty_message(nl), nl->family, index), &a);

	if (ret)
		return err_sys(e, ERR_KERNEL, -ret, "disconnect (NBD_CMD_DISCONNECT)");
	return 0;
}

static int send_reconfigure(struct nbdnl *nl, int built, uint32_t index, const char *what,
			    struct err *e)
{
	struct nbdnl_answer a;
	int ret = send_command(nl, built, &a);

	/* The messages built here give the kernel no other reason for EINVAL. */
	if (ret == -EINVAL)
		return err_set(e, ERR_ABSENT, EINVAL,
			       "%s: nbd%u is not attached any more, or to another export", what,
			       index);
	if (ret)
		return err_sys(e, ERR_KERNEL, -ret, "%s of nbd%u (NBD_CMD_RECONFIGURE)", what,
			       index);
	return 0;
}

int nbdnl_offer(struct nbdnl *nl, uint32_t index, const char *backend, int fd, struct err *e)
{
	int built = nbdnl_build_offer(empty_message(nl), nl->family, index, backend, fd);

	return send_reconfigure(nl, built, index, "replace a connection", e);
}

int nbdnl_resize(struct nbdnl *nl, uint32_t index, const char *backend, uint64_t size,
		 struct err *e)
{
	int built = nbdnl_build_resize(empty_message(nl), nl->family, index, backend, size);

	return send_reconfigure(nl, built, index, "change the size", e);
}

int nbdnl_probe(struct nbdnl *nl, uint32_t index, const char *backend, struct err *e)
{
	int built = nbdnl_build_probe(empty_message(nl), nl->family, index, backend);

	return send_reconfigure(nl, built, index, "look at the configuration", e);
}
