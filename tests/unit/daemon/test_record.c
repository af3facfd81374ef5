/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../tree.h"
#include "../unit.h"

/* A new directory as descriptor and as path. */
static int new_dir(char path[PATH_MAX])
{
	char link[64];
	int fd = tree_new();
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	return fd;
}

/* Names of all entries but the usual two, in one text. */
static const char *entries(int fd)
{
	static char text[1024];
	DIR *dir = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	text[0] = '\0';
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		strcat(text, entry->d_name);
		strcat(text, " ");
	}
	closedir(dir);
	return text;
}

static void sample(struct record *s)
{
	memset(s, 0, sizeof(*s));
	s->pid = 4321;
	s->connections = 2;
	s->read_only = 1;
	strcpy(s->backend, "nbd://server:10809/disk");
	strcpy(s->host, "server:10809");
	strcpy(s->export, "disk");
	strcpy(s->peer, "192.0.2.1:10809");
	strcpy(s->tls, "TLS1.3 AES-128-GCM kernel");
	s->supervisor = 99;
	s->reconnects = 7;
	s->alive = 1;
	s->server_flags = 0x16d;
	s->timeout_s = 30;
	strcpy(s->name, "real disk");
	strcpy(s->last_error, "it was\nbad");
	strcpy(s->error_time, "2001-02-03T04:05:06Z");
	s->durable = (struct rc_durable){
		.paused = true,
		.server = 7,
		.fenced_until = 1LL << 40,
		.size = UINT64_C(1) << 50,
		.server_size = { 1, 2, 3, 4, 5, 6, 7, INT64_MAX },
	};
}

static void expect_equal(const struct record *a, const struct record *b)
{
	ck_assert_int_eq(a->pid, b->pid);
	ck_assert_uint_eq(a->connections, b->connections);
	ck_assert_int_eq(a->read_only, b->read_only);
	ck_assert_str_eq(a->backend, b->backend);
	ck_assert_str_eq(a->host, b->host);
	ck_assert_str_eq(a->export, b->export);
	ck_assert_str_eq(a->peer, b->peer);
	ck_assert_str_eq(a->tls, b->tls);
	ck_assert_int_eq(a->supervisor, b->supervisor);
	ck_assert_uint_eq(a->reconnects, b->reconnects);
	ck_assert_uint_eq(a->alive, b->alive);
	ck_assert_uint_eq(a->server_flags, b->server_flags);
	ck_assert_uint_eq(a->timeout_s, b->timeout_s);
	ck_assert_str_eq(a->name, b->name);
	ck_assert_str_eq(a->last_error, b->last_error);
	ck_assert_str_eq(a->error_time, b->error_time);
	ck_assert(a->durable.paused == b->durable.paused);
	ck_assert_uint_eq(a->durable.server, b->durable.server);
	ck_assert_int_eq(a->durable.fenced_until, b->durable.fenced_until);
	ck_assert_uint_eq(a->durable.size, b->durable.size);
	for (int i = 0; i < RC_SERVERS_MAX; i++)
		ck_assert_uint_eq(a->durable.server_size[i], b->durable.server_size[i]);
}

/* Written and read again, over memory that has other contents. */
static void round_trip(const struct record *s)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	struct record got;

	ck_assert_msg(!record_write(path, 3, s, &e), "%s", e.text);
	memset(&got, 0x5a, sizeof(got));
	ck_assert_msg(!record_read(path, 3, &got, &e), "%s", e.text);
	expect_equal(&got, s);
	ck_assert_str_eq(entries(fd), "nbd3 ");
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}

START_TEST(round_trip_of_a_sample)
{
	struct record s;

	sample(&s);
	round_trip(&s);
}
END_TEST

START_TEST(round_trip_of_nothing)
{
	struct record s = { .pid = 1 };

	round_trip(&s);
}
END_TEST

START_TEST(round_trip_of_hostile_bytes)
{
	struct record s;
	size_t n = 0;

	sample(&s);
	strcpy(s.backend, "nbd://x/%0Apid=1\npid=2\n\n=\n==");
	strcpy(s.host, " \t leading and trailing \r\n");
	strcpy(s.peer, "%%25%4%\x7f%");
	for (int c = 255; c; c--)
		s.export[n++] = (char)c;
	s.export[n] = '\0';
	round_trip(&s);
}
END_TEST

START_TEST(round_trip_of_the_longest)
{
	struct record s;

	memset(&s, 0, sizeof(s));
	s.pid = INT_MAX;
	s.connections = INT_MAX;
	/* encoded, each byte is three */
	memset(s.backend, '\n', sizeof(s.backend) - 1);
	memset(s.host, '\xff', sizeof(s.host) - 1);
	memset(s.export, '%', sizeof(s.export) - 1);
	memset(s.peer, '\x01', sizeof(s.peer) - 1);
	memset(s.tls, '\x02', sizeof(s.tls) - 1);
	ck_assert_uint_eq(strlen(s.export), 4096);
	round_trip(&s);
}
END_TEST

START_TEST(no_fence_is_one_that_is_over)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s, got;

	sample(&s);
	s.durable.fenced_until = RC_NEVER;
	ck_assert_int_eq(record_write(path, 3, &s, &e), 0);
	ck_assert_int_eq(record_read(path, 3, &got, &e), 0);
	ck_assert_int_eq(got.durable.fenced_until, 0);
	close(fd);
}
END_TEST

START_TEST(numbers_have_limits)
{
	static const struct {
		const char *text;
		int ret;
	} table[] = {
		{ "pid=1\npaused=1\n", 0 },
		{ "pid=1\npaused=2\n", -EBADMSG },
		{ "pid=1\nserver=2147483648\n", -EBADMSG },
		{ "pid=1\nsize=9223372036854775807\n", 0 },
		{ "pid=1\nsize=9223372036854775808\n", -EBADMSG },
		{ "pid=1\nfenced-until=-1\n", -EBADMSG },
		{ "pid=1\nserver-size.8=1\n", 0 },
	};
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record got;

	tree_put(fd, "nbd3", table[_i].text);
	ck_assert_int_eq(record_read(path, 3, &got, &e), table[_i].ret);
	close(fd);
}
END_TEST

/* --- the lock --------------------------------------------------------------------------------- */

static pid_t start_holder(int fd, int ready[2])
{
	struct err e = { 0 };
	char c = 0;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		close(ready[0]);
		if (record_lock(fd, 3, &e) >= 0 && write(ready[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	return pid;
}

/* One that is killed leaves its file, which hinders nobody. */
START_TEST(lock_has_one_holder)
{
	char path[PATH_MAX], text[100];
	int fd = new_dir(path), ready[2], lock;
	unsigned before = leak_fds();
	struct err e = { 0 };
	pid_t pid;

	pid = start_holder(fd, ready);
	ck_assert_int_eq(record_lock(fd, 3, &e), -EBUSY);
	ck_assert_int_eq(e.kind, ERR_BUSY);
	snprintf(text, sizeof(text), "nbd3 is supervised by process %d", (int)pid);
	ck_assert_str_eq(e.text, text);
	/* Another device is another matter. */
	lock = record_lock(fd, 4, &e);
	ck_assert_int_ge(lock, 0);
	record_unlock(fd, 4, lock);
	ck_assert_str_eq(entries(fd), "nbd3.lock ");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ck_assert_str_eq(entries(fd), "nbd3.lock ");
	lock = record_lock(fd, 3, &e);
	ck_assert_msg(lock >= 0, "%s", e.text);
	record_unlock(fd, 3, lock);
	ck_assert_str_eq(entries(fd), "");
	close(ready[0]);
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

/* A child has no part in it, whatever it closes. */
START_TEST(lock_is_not_a_childs)
{
	char path[PATH_MAX];
	int fd = new_dir(path), lock, status;
	struct err e = { 0 };
	pid_t pid;

	lock = record_lock(fd, 3, &e);
	ck_assert_int_ge(lock, 0);
	for (int i = 0; i < 2; i++) {
		pid = fork();
		if (!pid) {
			close(lock);
			_exit(record_lock(fd, 3, &e) == -EBUSY ? 0 : 1);
		}
		waitpid(pid, &status, 0);
		ck_assert_int_eq(status, 0);
	}
	record_unlock(fd, 3, lock);
	close(fd);
}
END_TEST

/* Whoever has the lock removes its name: another one may have opened the file just before. */
START_TEST(lock_and_unlink_race)
{
	enum { PROCESSES = 4, ROUNDS = 300 };
	char path[PATH_MAX];
	int fd = new_dir(path), held, status;
	struct err e;
	pid_t pid[PROCESSES];

	for (int i = 0; i < PROCESSES; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		for (int taken = 0; taken < ROUNDS;) {
			int lock = record_lock(fd, 3, &e), mark;

			if (lock == -EBUSY)
				continue;
			/* Nobody else is here. */
			mark = openat(fd, "mark", O_CREAT | O_EXCL | O_WRONLY, 0600);
			if (lock < 0 || mark < 0)
				_exit(1);
			close(mark);
			unlinkat(fd, "mark", 0);
			record_unlock(fd, 3, lock);
			taken++;
		}
		_exit(0);
	}
	held = 0;
	for (int i = 0; i < PROCESSES; i++) {
		waitpid(pid[i], &status, 0);
		held += status == 0;
	}
	ck_assert_int_eq(held, PROCESSES);
	ck_assert_str_eq(entries(fd), "");
	close(fd);
}
END_TEST

START_TEST(remove_takes_what_the_dead_have_left)
{
	char path[PATH_MAX];
	int fd = new_dir(path), ready[2];
	struct err e = { 0 };
	struct record s;
	pid_t pid;

	sample(&s);
	pid = start_holder(fd, ready);
	tree_put(fd, "nbd3.ctl", "");
	ck_assert_int_eq(record_write(path, 3, &s, &e), 0);
	record_remove(path, 3);
	/* Those of one that lives are its own. */
	ck_assert_ptr_nonnull(strstr(entries(fd), "nbd3.ctl "));
	ck_assert_ptr_nonnull(strstr(entries(fd), "nbd3.lock "));
	ck_assert_ptr_null(strstr(entries(fd), "nbd3 "));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	record_remove(path, 3);
	ck_assert_str_eq(entries(fd), "");
	close(ready[0]);
	close(fd);
}
END_TEST

static void set(struct settings *s, const char *name, const char *text)
{
	const struct settings_row *row = settings_find(name, SETTINGS_RECORD);
	struct err e = { 0 };

	ck_assert_msg(!settings_set(s, row, name, text, &e), "%s: %s", name, e.text);
}

START_TEST(file_has_one_key_a_line)
{
	static struct settings settings;
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;

	sample(&s);
	s.settings = &settings;
	settings_init(&settings);
	set(&settings, "block-size", "4K");
	set(&settings, "root", NULL);
	set(&settings, "tls-ca", "/etc/my ca.pem");
	set(&settings, "server", "nbd://server/my%20disk");
	set(&settings, "server", "nbd+unix:///my%20disk?socket=/run/s");
	ck_assert_int_eq(settings_complete(&settings, false, &e), 0);
	strcpy(s.export, "my disk=100%\n");
	ck_assert_int_eq(record_write(path, 0, &s, &e), 0);
	ck_assert_str_eq(tree_text(fd, "nbd0"),
			 "pid=4321\n"
			 "connections=2\n"
			 "read-only=1\n"
			 "backend=nbd://server:10809/disk\n"
			 "host=server:10809\n"
			 "export=my%20disk=100%25%0A\n"
			 "peer=192.0.2.1:10809\n"
			 "tls=TLS1.3%20AES-128-GCM%20kernel\n"
			 "supervisor=99\n"
			 "reconnects=7\n"
			 "alive=1\n"
			 "server-flags=365\n"
			 "timeout=30\n"
			 "name=real%20disk\n"
			 "last-error=it%20was%0Abad\n"
			 "error-time=2001-02-03T04:05:06Z\n"
			 "paused=1\n"
			 "server=7\n"
			 "fenced-until=1099511627776\n"
			 "size=1125899906842624\n"
			 "server-size.0=1\n"
			 "server-size.1=2\n"
			 "server-size.2=3\n"
			 "server-size.3=4\n"
			 "server-size.4=5\n"
			 "server-size.5=6\n"
			 "server-size.6=7\n"
			 "server-size.7=9223372036854775807\n"
			 "settings.block-size=4096\n"
			 "settings.root=1\n"
			 "settings.tls-ca=/etc/my%20ca.pem\n"
			 "settings.server=nbds://server:10809/my%2520disk\n"
			 "settings.server=nbds+unix:///my%2520disk?socket=/run/s\n");
	close(fd);
}
END_TEST

/* Two servers, and a text of each kind as long as it may be. */
static void set_all(struct settings *s, char byte)
{
	char text[TLS_PATH_MAX + 1], uri[URI_EXPORT_MAX + 64] = "nbds://h/";
	size_t used = strlen(uri);

	settings_init(s);
	memset(uri + used, 'x', URI_EXPORT_MAX);
	uri[used + URI_EXPORT_MAX] = '\0';
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++)
		set(s, "server", uri);
	/* what has to be encoded in a URI, and once more in the record */
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++)
		memset(s->servers[i].export, byte, URI_EXPORT_MAX);
	for (const struct settings_row *row = settings_rows; row->name; row++) {
		if (row->type == SETTINGS_TEXT || row->type == SETTINGS_FILE) {
			memset(text, byte, row->max);
			text[row->max] = '\0';
			set(s, row->name, text);
		} else if (row->type == SETTINGS_NUMBER) {
			snprintf(text, sizeof(text), "%llu", (unsigned long long)row->max);
			set(s, row->name, text);
		}
	}
}

START_TEST(settings_round_trip)
{
	static const char bytes[] = { 'x', '%', '\n', '\x01', '=' };
	static struct settings given, got;
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	struct record s, same;

	sample(&s);
	set_all(&given, bytes[_i]);
	/* of a device without a supervisor there is none of these */
	given.dead_timeout_s = 0;
	given.given &=
		~(UINT64_C(1) << (settings_find("dead-timeout", SETTINGS_RECORD) - settings_rows));
	ck_assert_int_eq(settings_complete(&given, false, &e), 0);
	s.settings = &given;
	ck_assert_msg(!record_write(path, 3, &s, &e), "%s", e.text);
	memset(&got, 0x5a, sizeof(got));
	ck_assert_msg(!record_read_settings(path, 3, &got, &e), "%s", e.text);
	ck_assert_msg(!memcmp(&got, &given, sizeof(got)), "the settings differ");
	ck_assert_int_eq(record_read(path, 3, &same, &e), 0);
	expect_equal(&same, &s);
	ck_assert_ptr_null(same.settings);
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

START_TEST(settings_of_a_command)
{
	char sh[] = "sh", c[] = "-c", script[] = "a\n%20b", empty[] = "";
	static struct settings given, got;
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;

	sample(&s);
	settings_init(&given);
	ck_assert_int_eq(settings_set_command(&given, (char *[]){ sh, c, script, empty, NULL },
					      "my disk", &e),
			 0);
	ck_assert_int_eq(settings_complete(&given, false, &e), 0);
	s.settings = &given;
	ck_assert_int_eq(record_write(path, 3, &s, &e), 0);
	ck_assert_ptr_nonnull(strstr(tree_text(fd, "nbd3"), "settings.no-supervise=1\n"
							    "settings.command=sh\n"
							    "settings.command=-c\n"
							    "settings.command=a%0A%2520b\n"
							    "settings.command=\n"
							    "settings.export=my%20disk\n"));
	ck_assert_msg(!record_read_settings(path, 3, &got, &e), "%s", e.text);
	ck_assert_mem_eq(got.command.words, given.command.words, sizeof(got.command.words));
	ck_assert_uint_eq(got.command.count, 4);
	ck_assert_str_eq(got.servers[0].export, "my disk");
	ck_assert(got.supervision.none);
	close(fd);
}
END_TEST

START_TEST(settings_that_are_wrong)
{
	static const struct {
		const char *text;
		int code;
		const char *says;
	} table[] = {
		{ "pid=1\nsettings.server=nbd://h/x\n", 0, "" },
		{ "pid=1\nsettings.server=nbd://h/x\nsettings.later=%not%encoded\nlater\n", EBADMSG,
		  "not a record" },
		{ "settings.server=nbd://h/x\nsettings.later=%not%encoded\n=\nx=\n", 0, "" },
		/* an earlier version's, which kept the words of the command line */
		{ "pid=1\ncommand-line=nbd-attach%0Ah%0Ax%0Anbd0%0A/root%0A\n", ENODATA,
		  "nbd0: its record, of another version, does not say how it was attached; detach" },
		{ "pid=1\nsettings.read-only=1\n", ENODATA, "another version" },
		{ "settings.server=h\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/%25zz\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/%zz\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/\nsettings.read-only=yes\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/\nsettings.timeout=\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/\nsettings.tls-ca=\n", EBADMSG, "not a record" },
		{ "settings.server=nbd://h/\nsettings.dead-timeout=1\n", EINVAL,
		  "nbd0: as it was attached: dead-timeout is for no-supervise" },
	};
	static struct settings got;
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();

	ck_assert_int_eq(record_read_settings(path, 0, &got, &e), -ENOENT);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		tree_put(fd, "nbd0", table[i].text);
		err_clear(&e);
		ck_assert_msg(record_read_settings(path, 0, &got, &e) == -table[i].code, "%s: %s",
			      table[i].text, e.text);
		ck_assert_msg(strstr(e.text, table[i].says) != NULL, "%s: %s", table[i].text,
			      e.text);
	}
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

static mode_t mode_of(int fd, const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_mode;
}

/* Whatever the umask allows, nobody else reads a record. */
START_TEST(modes)
{
	char path[PATH_MAX], below[PATH_MAX + 8];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;
	mode_t old;

	sample(&s);
	snprintf(below, sizeof(below), "%s/made", path);
	old = umask(0);
	ck_assert_msg(!record_write(below, 15, &s, &e), "%s", e.text);
	ck_assert_msg(!record_write(below, 15, &s, &e), "%s", e.text);
	umask(old);
	ck_assert_uint_eq(mode_of(fd, "made"), S_IFDIR | 0755);
	ck_assert_uint_eq(mode_of(fd, "made/nbd15"), S_IFREG | 0600);
	close(fd);
}
END_TEST

/* By rename: who reads sees all of the old record or all of the new one. */
START_TEST(write_replaces)
{
	char path[PATH_MAX];
	int fd = new_dir(path), reader;
	struct err e = { 0 };
	struct record s, got;
	char old[16] = "";

	tree_put(fd, "nbd1", "old contents");
	reader = openat(fd, "nbd1", O_RDONLY | O_CLOEXEC);
	sample(&s);
	ck_assert_int_eq(record_write(path, 1, &s, &e), 0);
	ck_assert_int_eq(read(reader, old, sizeof(old) - 1), 12);
	ck_assert_str_eq(old, "old contents");
	ck_assert_int_eq(record_read(path, 1, &got, &e), 0);
	expect_equal(&got, &s);
	ck_assert_str_eq(entries(fd), "nbd1 ");
	close(reader);
	close(fd);
}
END_TEST

START_TEST(write_follows_no_link)
{
	char path[PATH_MAX], temporary[64];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;

	sample(&s);
	tree_put(fd, "victim", "untouched");
	/* the record's own name is replaced, the name it is written under is not followed */
	tree_link(fd, "nbd1", "victim");
	ck_assert_int_eq(record_write(path, 1, &s, &e), 0);
	ck_assert_uint_eq(mode_of(fd, "nbd1"), S_IFREG | 0600);
	snprintf(temporary, sizeof(temporary), ".nbd2");
	tree_link(fd, temporary, "victim");
	ck_assert_int_eq(record_write(path, 2, &s, &e), -ELOOP);
	ck_assert_str_eq(tree_text(fd, "victim"), "untouched");
	close(fd);
}
END_TEST

START_TEST(aliases)
{
	char path[PATH_MAX], where[PATH_MAX + 32], longest[600] = "";
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	mode_t old = umask(0);

	ck_assert_int_eq(record_write_udev_name(path, 1, 44, "h:1-a\\x2fb", &e), 0);
	umask(old);
	ck_assert_str_eq(entries(fd), "nbd1.44.udev ");
	ck_assert_str_eq(tree_text(fd, "nbd1.44.udev"), "NBD_ATTACH_ALIAS=h:1-a\\x2fb\n");
	ck_assert_uint_eq(mode_of(fd, "nbd1.44.udev"), S_IFREG | 0600);
	/* each process has its own */
	record_remove_udev_name(path, 1, 4);
	record_remove_udev_name(path, 11, 44);
	ck_assert_str_eq(entries(fd), "nbd1.44.udev ");
	record_remove_udev_name(path, 1, 44);
	ck_assert_str_eq(entries(fd), "");

	/* with the record all of its device go, and no other's */
	tree_put(fd, "nbd1.3.udev", "");
	tree_put(fd, ".nbd1.4.udev", "");
	tree_put(fd, "nbd1.ctl", "");
	record_remove(path, 1);
	ck_assert_str_eq(entries(fd), "nbd1.ctl ");
	unlinkat(fd, "nbd1.ctl", 0);
	tree_put(fd, "nbd11.3.udev", "");
	record_remove(path, 1);
	ck_assert_str_eq(entries(fd), "nbd11.3.udev ");
	record_remove(path, 11);

	tree_put(fd, "victim", "untouched");
	tree_link(fd, ".nbd2.1.udev", "victim");
	ck_assert_int_eq(record_write_udev_name(path, 2, 1, "x", &e), -ELOOP);
	ck_assert_str_eq(tree_text(fd, "victim"), "untouched");
	ck_assert_str_eq(entries(fd), "victim ");
	memset(longest, 'x', sizeof(longest) - 1);
	ck_assert_int_eq(record_write_udev_name(path, 2, 1, longest, &e), -ENAMETOOLONG);
	tree_mkdir(fd, "nbd2.1.udev");
	ck_assert_int_eq(record_write_udev_name(path, 2, 1, "x", &e), -EISDIR);
	ck_assert_ptr_nonnull(strstr(e.text, "/nbd2.1.udev: Is a directory"));
	snprintf(where, sizeof(where), "%s/no/such", path);
	ck_assert_int_eq(record_write_udev_name(where, 2, 1, "x", &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "make directory"));
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

START_TEST(write_errors)
{
	char path[PATH_MAX], where[PATH_MAX + 32];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	struct record s;

	sample(&s);
	snprintf(where, sizeof(where), "%s/no/such", path);
	ck_assert_int_eq(record_write(where, 1, &s, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "make directory"));
	ck_assert_ptr_nonnull(strstr(e.text, where));

	tree_put(fd, "file", "");
	snprintf(where, sizeof(where), "%s/file", path);
	ck_assert_int_eq(record_write(where, 1, &s, &e), -ENOTDIR);
	ck_assert_ptr_nonnull(strstr(e.text, "open directory"));

	/* what cannot be replaced: nothing is left of the attempt */
	tree_mkdir(fd, "nbd4");
	ck_assert_int_eq(record_write(path, 4, &s, &e), -EISDIR);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "write "));
	ck_assert_ptr_nonnull(strstr(e.text, "/nbd4: Is a directory"));
	ck_assert_int_eq(faccessat(fd, "nbd1", F_OK, 0), -1);
	unlinkat(fd, "file", 0);
	ck_assert_str_eq(entries(fd), "nbd4 ");
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

/* A limit stands for a disk that is full. */
START_TEST(write_to_a_full_disk)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct rlimit old, little;
	struct err e = { 0 };
	struct record s;
	int ret;

	sample(&s);
	memset(s.export, 'x', sizeof(s.export) - 1);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	little = old;
	little.rlim_cur = 100;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
	ret = record_write(path, 1, &s, &e);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_DFL);
	ck_assert_int_lt(ret, 0);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_str_eq(entries(fd), "");
	close(fd);
}
END_TEST

START_TEST(read_errors)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	struct record s;

	ck_assert_int_eq(record_read(path, 1, &s, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "/nbd1: No such file"));
	ck_assert_int_eq(record_read("/no/such/directory", 1, &s, &e), -ENOENT);
	tree_put(fd, "other", "pid=1\n");
	tree_link(fd, "nbd2", "other");
	ck_assert_int_eq(record_read(path, 2, &s, &e), -ELOOP);
	tree_mkdir(fd, "nbd3");
	ck_assert_int_eq(record_read(path, 3, &s, &e), -EISDIR);
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

START_TEST(read_what_is_for_root)
{
	char path[PATH_MAX];
	int fd = new_dir(path), ret;
	bool was_root = !geteuid();
	struct err e = { 0 };
	struct record s;

	sample(&s);
	ck_assert_int_eq(record_write(path, 1, &s, &e), 0);
	if (was_root) {
		/* the way there is open, as /run is */
		ck_assert_int_eq(fchmod(fd, 0755), 0);
		ck_assert_int_eq(fchmodat(fd, "..", 0755, 0), 0);
		/* not in a namespace that has no other user */
		if (seteuid(65534))
			return;
	} else {
		ck_assert_int_eq(fchmodat(fd, "nbd1", 0, 0), 0);
	}
	ret = record_read(path, 1, &s, &e);
	if (was_root)
		ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(ret, -EACCES);
	ck_assert_ptr_nonnull(strstr(e.text, "/nbd1: Permission denied"));
	close(fd);
}
END_TEST

START_TEST(corrupt)
{
	static const struct {
		const char *what, *text;
	} table[] = {
		{ "empty", "" },
		{ "newlines", "\n\n\n" },
		{ "no pid", "connections=1\nbackend=x\n" },
		{ "pid 0", "pid=0\n" },
		{ "negative pid", "pid=-5\n" },
		{ "pid is no number", "pid=12x\n" },
		{ "pid is empty", "pid=\n" },
		{ "pid with a space", "pid= 12\n" },
		{ "pid too large", "pid=2147483648\n" },
		{ "connections are no number", "pid=1\nconnections=many\n" },
		{ "connections too many", "pid=1\nconnections=99999999999999999999\n" },
		{ "read-only is no number", "pid=1\nread-only=yes\n" },
		{ "line without =", "pid=1\nexport\n" },
		{ "line without = before all", "record\npid=1\n" },
		{ "last line is cut", "pid=1\nexpo" },
		{ "no hexadecimal digit", "pid=1\nexport=%4g\n" },
		{ "lower case", "pid=1\nexport=%4a\n" },
		{ "% at the end", "pid=1\nexport=%\n" },
		{ "%4 at the end", "pid=1\nexport=%4\n" },
		{ "% and another", "pid=1\nexport=%%41\n" },
		{ "encoded NUL", "pid=1\nexport=a%00b\n" },
	};
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	unsigned before = leak_fds();
	struct record s;
	int ret;

	tree_put(fd, "nbd0", table[_i].text);
	ret = record_read(path, 0, &s, &e);
	ck_assert_msg(ret == -EBADMSG, "%s: %d", table[_i].what, ret);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "not a record of nbd-attach"));
	ck_assert_ptr_nonnull(strstr(e.text, path));
	ck_assert_uint_eq(leak_fds(), before);
	close(fd);
}
END_TEST

/* A text that just fits, and one byte more. */
START_TEST(corrupt_by_length)
{
	static const struct {
		const char *key;
		size_t max;
	} table[] = {
		{ "backend", PLAN_BACKEND_MAX },
		{ "host", 511 },
		{ "export", 4096 },
		{ "peer", 79 },
		{ "tls", 63 },
	};
	char path[PATH_MAX], text[8192];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		for (size_t more = 0; more < 2; more++) {
			size_t used = (size_t)sprintf(text, "pid=1\n%s=", table[i].key);

			memset(text + used, 'x', table[i].max + more);
			strcpy(text + used + table[i].max + more, "\n");
			tree_put(fd, "nbd0", text);
			ck_assert_msg(record_read(path, 0, &s, &e) == (more ? -EBADMSG : 0),
				      "%s of %zu bytes", table[i].key, table[i].max + more);
		}
	}
	close(fd);
}
END_TEST

START_TEST(corrupt_by_size)
{
	const size_t max = 4 * (sizeof(struct record) + sizeof(struct settings));
	static char text[4 * (sizeof(struct record) + sizeof(struct settings)) + 2000];
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;
	size_t used;

	/* only its size is wrong with it */
	used = (size_t)sprintf(text, "pid=1\nfuture=");
	memset(text + used, 'x', max + 1000);
	strcpy(text + used + max + 1000, "\n");
	tree_put(fd, "nbd0", text);
	ck_assert_int_eq(record_read(path, 0, &s, &e), -EBADMSG);
	strcpy(text + used + 8000, "\n");
	tree_put(fd, "nbd0", text);
	ck_assert_msg(!record_read(path, 0, &s, &e), "%s", e.text);
	close(fd);
}
END_TEST

START_TEST(keys_of_a_later_version_are_ignored)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s;

	tree_put(fd, "nbd0",
		 "version=7\nexport=a\npid=12\nlater=%not%encoded\npids=99\npeer=p\n=\n");
	ck_assert_msg(!record_read(path, 0, &s, &e), "%s", e.text);
	ck_assert_int_eq(s.pid, 12);
	ck_assert_uint_eq(s.connections, 0);
	ck_assert_int_eq(s.read_only, 0);
	ck_assert_str_eq(s.export, "a");
	ck_assert_str_eq(s.peer, "p");
	ck_assert_str_eq(s.backend, "");
	ck_assert_str_eq(s.host, "");
	close(fd);
}
END_TEST

START_TEST(records_are_apart_and_removed_one_by_one)
{
	char path[PATH_MAX];
	int fd = new_dir(path);
	struct err e = { 0 };
	struct record s, got;

	sample(&s);
	ck_assert_int_eq(record_write(path, 1, &s, &e), 0);
	s.pid = 99;
	ck_assert_int_eq(record_write(path, 11, &s, &e), 0);
	/* with what a process that was killed in the middle has left */
	tree_put(fd, ".nbd1", "pid=");
	record_remove(path, 1);
	ck_assert_str_eq(entries(fd), "nbd11 ");
	ck_assert_int_eq(record_read(path, 1, &got, &e), -ENOENT);
	ck_assert_int_eq(record_read(path, 11, &got, &e), 0);
	ck_assert_int_eq(got.pid, 99);
	record_remove(path, 1);
	record_remove("/no/such/directory", 1);
	record_remove(path, 11);
	ck_assert_str_eq(entries(fd), "");
	close(fd);
}
END_TEST

START_TEST(fits)
{
	static const struct {
		bool attached;
		pid_t pid;
		const char *backend;
		bool fits;
	} table[] = {
		{ true, 4321, "nbd://server:10809/disk", true },
		{ false, 4321, "nbd://server:10809/disk", false },
		{ true, 4322, "nbd://server:10809/disk", false },
		{ true, 0, "nbd://server:10809/disk", false },
		{ true, 4321, "nbd://server:10809/other", false },
		{ true, 4321, "nbd://server:10809/disk2", false },
		{ true, 4321, "", false },
	};
	struct record s;

	sample(&s);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sysfs_device d = { .attached = table[i].attached, .pid = table[i].pid };

		strcpy(d.backend, table[i].backend);
		ck_assert_msg(record_fits(&s, &d) == table[i].fits, "row %zu", i);
	}
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("state");
	TCase *t = tcase_create("state");

	tree_fixture(t);
	tcase_add_test(t, round_trip_of_a_sample);
	tcase_add_test(t, round_trip_of_nothing);
	tcase_add_test(t, round_trip_of_hostile_bytes);
	tcase_add_test(t, round_trip_of_the_longest);
	tcase_add_test(t, no_fence_is_one_that_is_over);
	tcase_add_loop_test(t, numbers_have_limits, 0, 7);
	tcase_add_test(t, lock_has_one_holder);
	tcase_add_test(t, lock_is_not_a_childs);
	tcase_add_test(t, lock_and_unlink_race);
	tcase_add_test(t, remove_takes_what_the_dead_have_left);
	tcase_add_test(t, file_has_one_key_a_line);
	tcase_add_loop_test(t, settings_round_trip, 0, 5);
	tcase_add_test(t, settings_of_a_command);
	tcase_add_test(t, settings_that_are_wrong);
	tcase_add_test(t, modes);
	tcase_add_test(t, write_replaces);
	tcase_add_test(t, write_follows_no_link);
	tcase_add_test(t, aliases);
	tcase_add_test(t, write_errors);
	tcase_add_test(t, write_to_a_full_disk);
	tcase_add_test(t, read_errors);
	tcase_add_test(t, read_what_is_for_root);
	tcase_add_loop_test(t, corrupt, 0, 21);
	tcase_add_test(t, corrupt_by_length);
	tcase_add_test(t, corrupt_by_size);
	tcase_add_test(t, keys_of_a_later_version_are_ignored);
	tcase_add_test(t, records_are_apart_and_removed_one_by_one);
	tcase_add_test(t, fits);
	suite_add_tcase(s, t);
	return s;
}
