/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/resolve.h"
#include "base/asan.h"
#include "../unit.h"

/* --- a process that is confined, and what becomes of it --------------------------------------- */

enum { REFUSED_TO_BE = 90, NOT_FILTERED };

/* Status of a child that calls f after it has been confined; f's result is its exit status. */
static int status_of(const struct sandbox *c, int (*f)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct err e;
		struct sandbox_result r;

		alarm(50);
		if (sandbox_enter(c, &r, &e)) {
			fprintf(stderr, "%s\n", e.text);
			_exit(REFUSED_TO_BE);
		}
		_exit(r.filtered != !(c->lenient || c->token) ? NOT_FILTERED : f());
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect(const struct sandbox *c, int (*f)(void), int result)
{
	int status = status_of(c, f);

	ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	ck_assert_int_eq(WEXITSTATUS(status), result);
}

static void expect_killed(const struct sandbox *c, int (*f)(void))
{
	int status = status_of(c, f);

	ck_assert_msg(WIFSIGNALED(status), "exit status %d", WEXITSTATUS(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}

static const struct sandbox names = { .lookups = true };
static const struct sandbox no_names = { .locked = true };

/* --- what is never permitted ------------------------------------------------------------------ */

static int call_execve(void)
{
	char *argv[] = { (char[]){ "true" }, NULL };

	execv("/bin/true", argv);
	return 0;
}

static int call_ptrace(void)
{
	return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static int call_kill(void)
{
	return kill(getppid(), SIGURG);
}

static int call_setuid(void)
{
	return (int)syscall(SYS_setuid, 0);
}

static int call_mount(void)
{
	return (int)syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL);
}

static int call_unlink(void)
{
	return unlink("/nonexistent");
}

static int open_for_writing(void)
{
	return open("/nonexistent", O_WRONLY | O_CREAT, 0600);
}

static int open_a_packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static int listen_to_the_network(void)
{
	return listen(0, 1);
}

static int make_a_thread(void)
{
	return (int)syscall(SYS_clone,
			    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0, 0,
			    0, 0);
}

static int make_a_namespace(void)
{
	return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}

static int make_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED;
}

static int make_code_later(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int call_bpf(void)
{
	return (int)syscall(SYS_bpf, 0, NULL, 0);
}

static int call_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}

/* The kernel takes nr for that of another architecture's table. */
static int call_unknown(void)
{
	return (int)syscall(0x40000000 | 39);
}

static int (*const forbidden[])(void) = {
	call_execve,
	call_ptrace,
	call_kill,
	call_setuid,
	call_mount,
	call_unlink,
	open_a_packet_socket,
	listen_to_the_network,
	make_a_thread,
	make_a_namespace,
	make_code,
	make_code_later,
	call_bpf,
	call_unknown,
};

START_TEST(forbidden_calls_kill)
{
	if (unit_under_valgrind())
		return;
	expect_killed(&names, forbidden[_i]);
	expect_killed(&no_names, forbidden[_i]);
}
END_TEST

START_TEST(what_only_lookups_need)
{
	if (unit_under_valgrind())
		return;
	expect_killed(&names, open_for_writing);
	expect_killed(&no_names, call_netlink);
}
END_TEST

/* --- what is refused -------------------------------------------------------------------------- */

static int open_a_file(void)
{
	struct stat st;

	if (!stat("/etc/passwd", &st) || errno != EACCES)
		return 1;
	if (!access("/etc/passwd", F_OK) || errno != EACCES)
		return 2;
	return open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES ? 3 : 0;
}

/* An address of a numbered interface: libraries ask for its name by a Unix socket. */
static int write_an_address(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_scope_id = 1 };
	char host[NI_MAXHOST];

	a.sin6_addr.s6_addr[0] = 0xfe;
	a.sin6_addr.s6_addr[1] = 0x80;
	a.sin6_addr.s6_addr[15] = 1;
	if (getnameinfo((struct sockaddr *)&a, sizeof(a), host, sizeof(host), NULL, 0,
			NI_NUMERICHOST))
		return 1;
	return strcmp(host, "fe80::1%1") ? 2 : 0;
}

START_TEST(files_are_refused_without_lookups)
{
	if (unit_under_valgrind())
		return;
	expect(&no_names, open_a_file, 0);
	expect(&no_names, write_an_address, 0);
}
END_TEST

/* --- what works ------------------------------------------------------------------------------- */

static int look_up(void)
{
	struct uri q = { .host = "localhost", .port = "10809" };
	struct resolve_result r;
	struct blocking_child t;
	struct err e;

	if (resolve_start(&t, &q, &e))
		return 1;
	return resolve_finish(&t, &q, &r, &e) ? 2 : !r.count;
}

static int write_an_address_with_a_name(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_scope_id = if_nametoindex("lo") };
	char host[NI_MAXHOST];

	a.sin6_addr.s6_addr[0] = 0xfe;
	a.sin6_addr.s6_addr[1] = 0x80;
	if (getnameinfo((struct sockaddr *)&a, sizeof(a), host, sizeof(host), NULL, 0,
			NI_NUMERICHOST))
		return 1;
	return strcmp(host, "fe80::%lo") ? 2 : 0;
}

/* A look-up that is given up: its child is killed. */
static void sleep_long(const void *arg, void *out)
{
	(void)arg;
	(void)out;
	poll(NULL, 0, 50000);
}

static int give_up(void)
{
	struct blocking_child t;
	struct err e;
	int arg = 0;

	if (blocking_child_start(&t, sleep_long, &arg, 1, &e))
		return 1;
	blocking_child_abandon(&t);
	return waitpid(-1, NULL, 0) != -1;
}

static int connect_to_somebody(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(1) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	return fd < 0 ?
		       1 :
		       connect(fd, (struct sockaddr *)&a, sizeof(a)) != -1 || errno != ECONNREFUSED;
}

static int fork_a_child(void)
{
	int pair[2], status;
	char c = 0;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 1;
	pid = fork();
	if (!pid) {
		setsid();
		prctl(PR_SET_NAME, "child");
		_exit(write(pair[1], "x", 1) != 1);
	}
	if (read(pair[0], &c, 1) != 1 || c != 'x')
		return 2;
	return waitpid(pid, &status, 0) != pid || status;
}

static int allocate(void)
{
	char *p = malloc(8 << 20);

	if (!p)
		return 1;
	memset(p, 1, 8 << 20);
	free(p);
	return 0;
}

/* LeakSanitizer has nothing to do with what is not freed at _exit. */
static int allocate_too_much(void)
{
	for (int i = 0; i < 64; i++)
		if (mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0) == MAP_FAILED)
			return 0;
	return 1;
}

START_TEST(a_client_can_work)
{
	static int (*const calls[])(void) = { connect_to_somebody, fork_a_child, allocate };

	if (unit_under_valgrind())
		return;
	expect(&names, calls[_i], 0);
	expect(&no_names, calls[_i], 0);
}
END_TEST

START_TEST(names_can_be_looked_up)
{
	static int (*const calls[])(void) = { look_up, write_an_address_with_a_name, give_up };

	if (unit_under_valgrind())
		return;
	expect(&names, calls[_i], 0);
}
END_TEST

START_TEST(memory_is_limited)
{
	if (SANITIZED || unit_under_valgrind())
		return;
	expect(&names, allocate_too_much, 0);
	expect(&no_names, allocate_too_much, 0);
}
END_TEST

/* --- privileges ------------------------------------------------------------------------------- */

/* A number of /proc/self/status, in the given base. */
static long long field(const char *name, int base)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");
	long long value = -1;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			value = strtoll(line + strlen(name) + 1, NULL, base);
	if (f)
		fclose(f);
	return value;
}

static int look_at_privileges(void)
{
	uid_t r, e, s;
	gid_t g, h, i;

	if (getresuid(&r, &e, &s) || getresgid(&g, &h, &i))
		return 1;
	if (field("CapEff:", 16) || field("CapPrm:", 16) || field("CapAmb:", 16) ||
	    field("CapInh:", 16))
		return 2;
	if (field("NoNewPrivs:", 10) != 1)
		return 3;
	if (prctl(PR_GET_DUMPABLE))
		return 4;
	return 0;
}

static int become_root_again(void)
{
	if (getgroups(0, NULL))
		return 1;
	return !setuid(0) || !geteuid() || !getegid();
}

/* How many of these lines /proc/self/limits has. */
static int look_at_limits(void)
{
	static const char *const lines[] = {
		"Max core file size        0                    0 ",
		"Max file size             0                    0 ",
		"Max open files            256                  256 ",
	};
	FILE *f = fopen("/proc/self/limits", "r");
	char line[256];
	int found = 0;

	while (f && fgets(line, sizeof(line), f))
		for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
			found += !strncmp(line, lines[i], strlen(lines[i]));
	return found;
}

START_TEST(nothing_is_left_of_privileges)
{
	const struct sandbox c = { .lookups = true, .lenient = true };

	expect(&c, look_at_privileges, 0);
	if (!unit_under_valgrind())
		expect(&names, look_at_limits, 3);
	if (!geteuid())
		expect(&c, become_root_again, 0);
}
END_TEST

static int is_root_still(void)
{
	/* root without CAP_SYS_CHROOT */
	return getuid() || geteuid() || chroot("/") != -1 || errno != EPERM;
}

START_TEST(root_keeps_its_name)
{
	const struct sandbox c = { .user = "root", .lookups = true, .lenient = true };

	if (geteuid())
		return;
	expect(&c, is_root_still, 0);
	expect(&c, look_at_privileges, 0);
}
END_TEST

/* An initramfs has no list. */
START_TEST(root_needs_no_list_of_users)
{
	const struct sandbox c = { .user = "root", .lookups = true, .lenient = true };
	char dir[] = "/tmp/empty.XXXXXX";
	struct sandbox_result r;
	struct err e;
	int status;
	pid_t pid;

	if (geteuid())
		return;
	ck_assert_ptr_nonnull(mkdtemp(dir));
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(chroot(dir) || chdir("/") ? 2 : sandbox_enter(&c, &r, &e) ? 1 : 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(rmdir(dir), 0);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* A token's module writes files as their owner. */
static int write_a_file(void)
{
	char path[] = "/tmp/token.XXXXXX";
	int fd = mkstemp(path);

	if (fd < 0 || unlink(path) || write(fd, "x", 1) != 1)
		return 1;
	return getuid() || geteuid();
}

START_TEST(a_token_has_its_files)
{
	const struct sandbox c = { .lookups = true,
				   .token = true,
				   .lenient = unit_under_valgrind() };

	expect(&c, look_at_privileges, 0);
	if (!geteuid())
		expect(&c, write_a_file, 0);
}
END_TEST

START_TEST(no_such_user)
{
	const struct sandbox c = { .user = "no\033such", .lookups = true, .lenient = true };
	struct err e = { 0 };
	struct sandbox_result r;

	ck_assert_int_eq(sandbox_enter(&c, &r, &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "no\\x1bsuch"));
	ck_assert(!r.filtered);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("sandbox");
	TCase *tc = tcase_create("filter");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, forbidden_calls_kill, 0, sizeof(forbidden) / sizeof(forbidden[0]));
	tcase_add_test(tc, what_only_lookups_need);
	tcase_add_test(tc, files_are_refused_without_lookups);
	tcase_add_loop_test(tc, a_client_can_work, 0, 3);
	tcase_add_loop_test(tc, names_can_be_looked_up, 0, 3);
	tcase_add_test(tc, memory_is_limited);
	suite_add_tcase(suite, tc);
	tc = tcase_create("privileges");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, nothing_is_left_of_privileges);
	tcase_add_test(tc, root_keeps_its_name);
	tcase_add_test(tc, root_needs_no_list_of_users);
	tcase_add_test(tc, a_token_has_its_files);
	tcase_add_test(tc, no_such_user);
	suite_add_tcase(suite, tc);
	return suite;
}
