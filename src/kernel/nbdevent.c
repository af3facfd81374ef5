/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/nbdevent.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

/* Returns the number of the multicast group, or -errno. */
static int find_group(struct err *e)
{
	struct nl_sock *sk = nl_socket_alloc();
	int ret;

	if (!sk)
		return err_sys(e, ERR_FAILED, ENOMEM, "netlink");
	ret = genl_connect(sk);
	if (ret) {
		ret = err_set(e, ERR_KERNEL, EIO, "open generic netlink: %s", nl_geterror(ret));
		goto out;
	}
	ret = genl_ctrl_resolve_grp(sk, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
	if (ret < 0)
		ret = err_set(e, ERR_KERNEL, ENOENT,
			      "the kernel tells nothing of dead connections: its nbd driver is not "
			      "loaded, or older than 4.12");
out:
	nl_socket_free(sk);
	return ret;
}

int nbdevent_open(struct err *e)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int group = find_group(e), fd;

	if (group < 0)
		return group;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&any, sizeof(any)) &&
	    !setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return fd;
	err_sys(e, ERR_KERNEL, errno, "listen for dead connections (netlink)");
	if (fd >= 0)
		close(fd);
	return -e->code;
}

enum nbdevent nbdevent_parse(void *datagram, size_t len, uint32_t *index)
{
	static const struct nla_policy policy[NBD_ATTR_MAX + 1] = {
		[NBD_ATTR_INDEX] = { .type = NLA_U32 },
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nlmsghdr *h = datagram;

	if (!nlmsg_ok(h, (int)len) || h->nlmsg_type < NLMSG_MIN_TYPE || !genlmsg_valid_hdr(h, 0) ||
	    genlmsg_hdr(h)->cmd != NBD_CMD_LINK_DEAD ||
	    genlmsg_parse(h, 0, attrs, NBD_ATTR_MAX, policy) || !attrs[NBD_ATTR_INDEX])
		return NBDEVENT_NONE;
	*index = nla_get_u32(attrs[NBD_ATTR_INDEX]);
	return NBDEVENT_DEAD;
}

int nbdevent_read(int fd, uint32_t *index, struct err *e)
{
	_Alignas(struct nlmsghdr) char buf[1024];
	struct sockaddr_nl from;
	socklen_t from_len;
	ssize_t n;

	for (;;) {
		from_len = sizeof(from);
		n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return NBDEVENT_NONE;
		/* netlink(7): the kernel could not queue a message; the socket stays usable. */
		if (n < 0 && errno == ENOBUFS)
			return NBDEVENT_LOST;
		if (n < 0)
			return err_sys(e, ERR_KERNEL, errno, "read of dead connections (netlink)");
		/* Port 0 is the kernel. */
		if (from_len == sizeof(from) && !from.nl_pid &&
		    nbdevent_parse(buf, (size_t)n, index) == NBDEVENT_DEAD)
			return NBDEVENT_DEAD;
	}
}
