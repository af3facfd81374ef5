/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/asan.h"
#include "base/text.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

enum {
	NOBODY = 65534, /* overflowuid in proc(5), used where there is no /etc/passwd */
	FILES_MAX = 256,
	/*
	 * 64 connections, the system's authorities and a relay's buffers need a fraction of this.
	 */
	MEMORY_MAX = 64 << 20,
};

/* --- the filter ------------------------------------------------------------------------------- */

/* Bits: the conditions of a rule. */
enum condition {
	ALWAYS = 1 << 0,
	LOOKUPS = 1 << 1,
	NO_LOOKUPS = 1 << 2,
	LOCKED = 1 << 3,
	SANITIZER = 1 << 4,
};

/* An argument's bits: the kernel looks at 32 of an int, those above them may be anything. */
struct argument {
	unsigned place;
	uint32_t mask, value;
};

struct rule {
	int call;
	enum condition condition;
	int refuse; /* errno; 0: allowed */
	unsigned arguments;
	struct argument argument[2];
};

/* clang-format off */
#define REFUSE(condition, call, code) { SCMP_SYS(call), condition, code, 0, { { 0, 0, 0 } } }
#define REFUSE_BITS(condition, call, place, mask, value, code) \
	{ SCMP_SYS(call), condition, code, 1, { { place, mask, value } } }
#define SOCKET(condition, family, type) \
	{ SCMP_SYS(socket), condition, 0, 2, \
	  { { 0, UINT32_MAX, family }, { 1, SOCK_TYPES, type } } }
/* clang-format on */
#define ANY(condition, call) REFUSE(condition, call, 0)
#define BITS(condition, call, place, mask, value) \
	REFUSE_BITS(condition, call, place, mask, value, 0)
#define IS(condition, call, place, value) BITS(condition, call, place, UINT32_MAX, value)

enum {
	SOCK_TYPES = 0xf, /* SOCK_TYPE_MASK of the kernel: no SOCK_CLOEXEC, no SOCK_NONBLOCK */
	/* O_TMPFILE has O_DIRECTORY in it, which is harmless. */
	WRITING = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY),
	/* All flags of clone except those of a fork: the signal and words for the C library. */
	NOT_FORK = ~(CSIGNAL | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID),
#ifdef __s390x__
	CLONE_FLAGS = 1,
#else
	CLONE_FLAGS = 0,
#endif
};

/* A call has either rules with arguments or one without. */
static const struct rule rules[] = {
	/* bytes */
	ANY(ALWAYS, read),
	ANY(ALWAYS, write),
	ANY(ALWAYS, recvfrom),
	ANY(ALWAYS, recvmsg),
	ANY(ALWAYS, sendto),
	ANY(ALWAYS, sendmsg),
	/* GnuTLS sends a record in one call. */
	ANY(ALWAYS, writev),
	ANY(ALWAYS, poll),
	ANY(ALWAYS, ppoll),
	ANY(ALWAYS, ppoll_time64),
	/* connections */
	SOCKET(ALWAYS, AF_INET, SOCK_STREAM),
	SOCKET(ALWAYS, AF_INET6, SOCK_STREAM),
	SOCKET(ALWAYS, AF_VSOCK, SOCK_STREAM),
	IS(ALWAYS, socketpair, 0, AF_UNIX),
	ANY(ALWAYS, connect),
	ANY(ALWAYS, shutdown),
	ANY(ALWAYS, getpeername),
	ANY(ALWAYS, getsockname),
	ANY(ALWAYS, getsockopt),
	IS(ALWAYS, setsockopt, 1, SOL_SOCKET),
	IS(ALWAYS, setsockopt, 1, IPPROTO_TCP),
	IS(ALWAYS, setsockopt, 1, SOL_TLS),
	/* descriptors */
	ANY(ALWAYS, close),
	ANY(ALWAYS, close_range),
	ANY(ALWAYS, dup2),
	ANY(ALWAYS, dup3),
	ANY(ALWAYS, fstat),
	ANY(ALWAYS, fstat64),
	ANY(ALWAYS, pipe2),
	IS(ALWAYS, fcntl, 1, F_DUPFD),
	IS(ALWAYS, fcntl, 1, F_DUPFD_CLOEXEC),
	IS(ALWAYS, fcntl, 1, F_GETFD),
	IS(ALWAYS, fcntl, 1, F_SETFD),
	IS(ALWAYS, fcntl, 1, F_GETFL),
	IS(ALWAYS, fcntl, 1, F_SETFL),
	IS(ALWAYS, fcntl64, 1, F_DUPFD),
	IS(ALWAYS, fcntl64, 1, F_DUPFD_CLOEXEC),
	IS(ALWAYS, fcntl64, 1, F_GETFD),
	IS(ALWAYS, fcntl64, 1, F_SETFD),
	IS(ALWAYS, fcntl64, 1, F_GETFL),
	IS(ALWAYS, fcntl64, 1, F_SETFL),
	/* memory, never executable memory */
	ANY(ALWAYS, brk),
	ANY(ALWAYS, munmap),
	ANY(ALWAYS, mremap),
	ANY(ALWAYS, madvise),
	BITS(ALWAYS, mmap, 2, PROT_EXEC, 0),
	BITS(ALWAYS, mmap2, 2, PROT_EXEC, 0),
	BITS(ALWAYS, mprotect, 2, PROT_EXEC, 0),
	ANY(LOCKED, mlockall),
	/* time and random numbers */
	ANY(ALWAYS, clock_gettime),
	ANY(ALWAYS, clock_gettime64),
	ANY(ALWAYS, clock_getres),
	ANY(ALWAYS, clock_nanosleep),
	ANY(ALWAYS, nanosleep),
	ANY(ALWAYS, gettimeofday),
	ANY(ALWAYS, time),
	ANY(ALWAYS, getrandom),
	/* relays and look-ups: a fork, and the first and last calls of such a child */
	BITS(ALWAYS, clone, CLONE_FLAGS, (uint32_t)NOT_FORK, 0),
	REFUSE(ALWAYS, clone3, ENOSYS),
	ANY(ALWAYS, fork),
	ANY(ALWAYS, wait4),
	ANY(ALWAYS, setsid),
	ANY(ALWAYS, chdir),
	IS(ALWAYS, prctl, 0, PR_SET_NAME),
	IS(ALWAYS, prctl, 0, PR_SET_PDEATHSIG),
	/* Allocators name their memory. */
	IS(ALWAYS, prctl, 0, PR_SET_VMA),
	ANY(ALWAYS, exit),
	ANY(ALWAYS, exit_group),
	/* calls that the C library makes by itself */
	ANY(ALWAYS, futex),
	ANY(ALWAYS, futex_time64),
	ANY(ALWAYS, set_robust_list),
	ANY(ALWAYS, rseq),
	ANY(ALWAYS, restart_syscall),
	ANY(ALWAYS, rt_sigaction),
	ANY(ALWAYS, rt_sigprocmask),
	ANY(ALWAYS, rt_sigreturn),
	ANY(ALWAYS, sched_getaffinity),
	ANY(ALWAYS, sched_yield),
	ANY(ALWAYS, sysinfo),
	ANY(ALWAYS, uname),
	ANY(ALWAYS, getpid),
	ANY(ALWAYS, getppid),
	ANY(ALWAYS, gettid),
	ANY(ALWAYS, getuid),
	ANY(ALWAYS, geteuid),
	ANY(ALWAYS, getgid),
	ANY(ALWAYS, getegid),

	/*
	 * Files. Refused, but the process goes on: GnuTLS looks for changes of its configuration
	 * before each session.
	 */
	REFUSE(NO_LOOKUPS, open, EACCES),
	REFUSE(NO_LOOKUPS, openat, EACCES),
	REFUSE(NO_LOOKUPS, access, EACCES),
	REFUSE(NO_LOOKUPS, faccessat, EACCES),
	REFUSE(NO_LOOKUPS, faccessat2, EACCES),
	REFUSE(NO_LOOKUPS, stat, EACCES),
	REFUSE(NO_LOOKUPS, stat64, EACCES),
	REFUSE(NO_LOOKUPS, lstat, EACCES),
	REFUSE(NO_LOOKUPS, lstat64, EACCES),
	REFUSE(NO_LOOKUPS, statx, EACCES),
	REFUSE(NO_LOOKUPS, readlink, EACCES),
	REFUSE(NO_LOOKUPS, readlinkat, EACCES),
	/* The same call is fstat() of some C libraries. */
	REFUSE_BITS(NO_LOOKUPS, newfstatat, 3, AT_EMPTY_PATH, 0, EACCES),
	REFUSE_BITS(NO_LOOKUPS, fstatat64, 3, AT_EMPTY_PATH, 0, EACCES),
	BITS(NO_LOOKUPS, newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	BITS(NO_LOOKUPS, fstatat64, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	/*
	 * The C library asks such a socket for the name of a network interface; the number will
	 * do.
	 */
	REFUSE_BITS(NO_LOOKUPS, socket, 1, SOCK_TYPES, SOCK_DGRAM, EACCES),

	/*
	 * The C library's resolver and its modules: configuration, name servers, routes to sort
	 * addresses by, local services.
	 */
	BITS(LOOKUPS, open, 1, WRITING, 0),
	BITS(LOOKUPS, openat, 2, WRITING, 0),
	ANY(LOOKUPS, access),
	ANY(LOOKUPS, faccessat),
	ANY(LOOKUPS, faccessat2),
	ANY(LOOKUPS, stat),
	ANY(LOOKUPS, stat64),
	ANY(LOOKUPS, lstat),
	ANY(LOOKUPS, lstat64),
	ANY(LOOKUPS, statx),
	ANY(LOOKUPS, newfstatat),
	ANY(LOOKUPS, fstatat64),
	ANY(LOOKUPS, readlink),
	ANY(LOOKUPS, readlinkat),
	ANY(LOOKUPS, lseek),
	ANY(LOOKUPS, _llseek),
	ANY(LOOKUPS, pread64),
	ANY(LOOKUPS, readv),
	ANY(LOOKUPS, getdents64),
	BITS(LOOKUPS, mmap, 2, PROT_WRITE, 0),
	BITS(LOOKUPS, mmap2, 2, PROT_WRITE, 0),
	SOCKET(LOOKUPS, AF_INET, SOCK_DGRAM),
	SOCKET(LOOKUPS, AF_INET6, SOCK_DGRAM),
	SOCKET(LOOKUPS, AF_UNIX, SOCK_STREAM),
	SOCKET(LOOKUPS, AF_UNIX, SOCK_DGRAM),
	SOCKET(LOOKUPS, AF_NETLINK, SOCK_RAW),
	SOCKET(LOOKUPS, AF_NETLINK, SOCK_DGRAM),
	IS(LOOKUPS, setsockopt, 1, IPPROTO_IP),
	IS(LOOKUPS, setsockopt, 1, IPPROTO_IPV6),
	IS(LOOKUPS, setsockopt, 1, SOL_NETLINK),
	ANY(LOOKUPS, bind),
	ANY(LOOKUPS, sendmmsg),
	ANY(LOOKUPS, recvmmsg),
	ANY(LOOKUPS, recvmmsg_time64),
	IS(LOOKUPS, ioctl, 1, FIONREAD),
	IS(LOOKUPS, ioctl, 1, SIOCGIFNAME),
	IS(LOOKUPS, ioctl, 1, SIOCGIFINDEX),
	/* the end of a look-up that is cancelled */
	IS(LOOKUPS, kill, 1, SIGKILL),

	/* AddressSanitizer: the stack for its reports */
	ANY(SANITIZER, sigaltstack),
};

static int add_rules(scmp_filter_ctx ctx, const struct sandbox *c)
{
	const unsigned conditions = ALWAYS | (c->lookups ? LOOKUPS : NO_LOOKUPS) |
				    (c->locked ? LOCKED : 0U) | (SANITIZED ? SANITIZER : 0U);
	struct scmp_arg_cmp compare[2];
	int ret = 0;

	for (size_t i = 0; !ret && i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];

		if (!(r->condition & conditions))
			continue;
		for (unsigned k = 0; k < r->arguments; k++)
			compare[k] = (struct scmp_arg_cmp){
				.arg = r->argument[k].place,
				.op = SCMP_CMP_MASKED_EQ,
				.datum_a = r->argument[k].mask,
				.datum_b = r->argument[k].value,
			};
		ret = seccomp_rule_add_array(ctx,
					     r->refuse ? SCMP_ACT_ERRNO((uint32_t)r->refuse) :
							 SCMP_ACT_ALLOW,
					     r->call, r->arguments, compare);
	}
	return ret;
}

static int install_filter(const struct sandbox *c, struct sandbox_result *r, struct err *e)
{
	scmp_filter_ctx ctx;
	int ret;

	/* EFAULT: the kernel has filters, and looks at the program; seccomp(2) */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) && errno != EFAULT)
		return 0;
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return err_sys(e, ERR_FAILED, ENOMEM, "filter of system calls");
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!ret)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_API_SYSRAWRC, 1);
	if (!ret)
		ret = add_rules(ctx, c);
	if (!ret)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	if (ret)
		return err_sys(e, ERR_FAILED, -ret, "filter of system calls");
	r->filtered = true;
	return 0;
}

/* --- the rest --------------------------------------------------------------------------------- */

/*
 * Reads /etc/passwd and not the name service, whose modules would stay in memory. A server that
 * knows the users may be behind the network that is not there yet.
 */
static int read_user_ids(const char *name, uid_t *uid, gid_t *gid, struct err *e)
{
	const char *wanted = name ? name : "nobody";
	char buf[2048], shown[256];
	struct passwd pw, *p = NULL;
	FILE *f;

	/* root needs no file: an initramfs has none. */
	*uid = *gid = 0;
	if (!strcmp(wanted, "root"))
		return 0;
	*uid = *gid = NOBODY;
	f = fopen("/etc/passwd", "re");
	while (f && !fgetpwent_r(f, &pw, buf, sizeof(buf), &p) && strcmp(p->pw_name, wanted))
		p = NULL;
	if (p) {
		*uid = p->pw_uid;
		*gid = p->pw_gid;
	}
	if (f)
		fclose(f);
	if (p || !name)
		return 0;
	text_escape(shown, sizeof(shown), name, strlen(name));
	return err_set(e, ERR_USAGE, ENOENT, "there is no user %s in /etc/passwd", shown);
}

static int set_limits(const struct sandbox *c, struct err *e)
{
	const struct {
#ifdef __GLIBC__
		__rlimit_resource_t resource;
#else
		int resource;
#endif
		bool wanted;
		rlim_t max;
		const char *what;
	} limits[] = {
		{ RLIMIT_CORE, true, 0, "core dumps" },
		{ RLIMIT_FSIZE, !c->token && !c->lenient, 0, "file sizes" },
		{ RLIMIT_NOFILE, !c->lenient, FILES_MAX, "open files" },
		/* AddressSanitizer reserves far more memory than it uses. */
		{ RLIMIT_DATA, !SANITIZED && !c->lenient && !c->token, MEMORY_MAX, "memory" },
	};
	struct rlimit now;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (!limits[i].wanted)
			continue;
		if (getrlimit(limits[i].resource, &now))
			return err_sys(e, ERR_FAILED, errno, "limit of %s", limits[i].what);
		if (now.rlim_max > limits[i].max)
			now.rlim_max = limits[i].max;
		now.rlim_cur = now.rlim_max;
		if (setrlimit(limits[i].resource, &now))
			return err_sys(e, ERR_FAILED, errno, "limit of %s", limits[i].what);
	}
	return 0;
}

/*
 * Locks all memory, now and later, while there is the privilege to remove the limit: what is
 * allocated later, or in a relay, has to be locked without privilege.
 */
static bool lock_all_memory(void)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };

	return !setrlimit(RLIMIT_MEMLOCK, &none) && !mlockall(MCL_CURRENT | MCL_FUTURE);
}

static int become_user(uid_t uid, gid_t gid, struct err *e)
{
	if (geteuid())
		return 0;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return err_sys(e, ERR_FAILED, errno, "become user %u, group %u", (unsigned)uid,
			       (unsigned)gid);
	return 0;
}

/* A root without capabilities is a user like others, who owns much; capabilities(7). */
static int drop_capabilities(struct err *e)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	/* These fail for a process without capabilities, and do not matter to it. */
	prctl(PR_SET_SECUREBITS,
	      SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
		      SECBIT_NO_SETUID_FIXUP_LOCKED,
	      0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none))
		return err_sys(e, ERR_FAILED, errno, "drop capabilities");
	return 0;
}

int sandbox_enter(const struct sandbox *c, struct sandbox_result *r, struct err *e)
{
	uid_t uid;
	gid_t gid;
	int ret;

	memset(r, 0, sizeof(*r));
	ret = read_user_ids(c->user, &uid, &gid, e);
	if (!ret)
		ret = set_limits(c, e);
	/* The C library reads its time zone now and never again; dates of certificates need it. */
	tzset();
	if (!ret && c->locked)
		r->locked = lock_all_memory();
	if (!ret && !c->token)
		ret = become_user(uid, gid, e);
	if (!ret)
		ret = drop_capabilities(e);
	if (!ret && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		ret = err_sys(e, ERR_FAILED, errno, "give up new privileges");
	if (!ret && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		ret = err_sys(e, ERR_FAILED, errno, "hide memory from others");
	if (!ret && !c->lenient && !c->token)
		ret = install_filter(c, r, e);
	return ret ? err_wrap(e, "confine a process") : 0;
}
