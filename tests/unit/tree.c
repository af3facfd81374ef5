// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

static char root[PATH_MAX];

static void begin(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(root, sizeof(root), "%s/nbd-attach-unit.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_msg(mkdtemp(root) != NULL, "mkdtemp %s: %s", root, strerror(errno));
}

static void remove_below(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		unlinkat(at, name, 0);
		return;
	}
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			remove_below(fd, entry->d_name);
	closedir(dir);
	unlinkat(at, name, AT_REMOVEDIR);
}

static void end(void)
{
	remove_below(AT_FDCWD, root);
}

void tree_fixture(TCase *tc)
{
	/* Unchecked: they run outside of the tests' processes, so that the end always comes. */
	tcase_add_unchecked_fixture(tc, begin, end);
}

static int open_dir(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "open %s: %s", path, strerror(errno));
	return fd;
}

int tree_new(void)
{
	char path[PATH_MAX];

	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/XXXXXX", root), (int)sizeof(path));
	ck_assert_msg(mkdtemp(path) != NULL, "mkdtemp %s: %s", path, strerror(errno));
	return open_dir(AT_FDCWD, path);
}

static void make_parents(int at, const char *path)
{
	char dir[PATH_MAX];

	for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
		ck_assert_int_lt(p - path, (int)sizeof(dir));
		memcpy(dir, path, (size_t)(p - path));
		dir[p - path] = '\0';
		ck_assert_msg(!mkdirat(at, dir, 0755) || errno == EEXIST, "mkdir %s: %s", dir,
			      strerror(errno));
	}
}

void tree_put(int at, const char *path, const char *text)
{
	size_t len = strlen(text);
	int fd;

	make_parents(at, path);
	unlinkat(at, path, 0);
	fd = openat(at, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	ck_assert_msg(fd >= 0, "create %s: %s", path, strerror(errno));
	ck_assert_int_eq(write(fd, text, len), (ssize_t)len);
	close(fd);
}

void tree_link(int at, const char *path, const char *target)
{
	make_parents(at, path);
	unlinkat(at, path, 0);
	ck_assert_msg(!symlinkat(target, at, path), "link %s: %s", path, strerror(errno));
}

void tree_mkdir(int at, const char *path)
{
	make_parents(at, path);
	ck_assert_msg(!mkdirat(at, path, 0755), "mkdir %s: %s", path, strerror(errno));
}

const char *tree_text(int at, const char *path)
{
	static char text[65536];
	int fd = openat(at, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	ck_assert_msg(fd >= 0, "open %s: %s", path, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_msg(n >= 0, "read %s: %s", path, strerror(errno));
	close(fd);
	text[n] = '\0';
	return text;
}

int tree_recorded(const char *name)
{
	char path[PATH_MAX];

	unit_data(path, sizeof(path), name);
	return open_dir(AT_FDCWD, path);
}

static void copy_below(int from, int to)
{
	DIR *dir = fdopendir(from);
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;
		char target[PATH_MAX];
		struct stat st;
		ssize_t n;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		ck_assert_int_eq(fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW), 0);
		if (S_ISDIR(st.st_mode)) {
			int below;

			tree_mkdir(to, name);
			below = open_dir(to, name);
			copy_below(open_dir(from, name), below);
			close(below);
		} else if (S_ISLNK(st.st_mode)) {
			n = readlinkat(from, name, target, sizeof(target) - 1);
			ck_assert_int_gt(n, 0);
			target[n] = '\0';
			tree_link(to, name, target);
		} else {
			tree_put(to, name, tree_text(from, name));
		}
	}
	closedir(dir);
}

int tree_copy(const char *name)
{
	int to = tree_new();

	copy_below(tree_recorded(name), to);
	return to;
}
