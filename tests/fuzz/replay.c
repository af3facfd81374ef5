// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
/*
 * Runs a fuzz harness over files: replay [FILE|DIRECTORY]..., without arguments over the
 * harness's own corpus. One TAP test in all; the log names each input before it runs, so that the
 * last name is the one that crashed.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct replay {
	unsigned long inputs;
	unsigned long errors;
};

static void complain(struct replay *r, const char *path, const char *what)
{
	printf("# %s: %s\n", path, what);
	r->errors++;
}

static void replay_file(struct replay *r, const char *path, size_t size)
{
	uint8_t *data = NULL;
	FILE *f;
	int ret;

	printf("# %s\n", path);
	fflush(stdout);

	f = fopen(path, "rb");
	if (!f) {
		complain(r, path, strerror(errno));
		return;
	}
	/* Exactly the input's size, so that AddressSanitizer sees the first byte read past it. */
	data = malloc(size);
	if (size && !data) {
		complain(r, path, "out of memory");
		goto out;
	}
	if (fread(data, 1, size, f) != size) {
		complain(r, path, "short read");
		goto out;
	}
	ret = LLVMFuzzerTestOneInput(data, size);
	r->inputs++;
	if (ret != 0 && ret != -1)
		complain(r, path, "the harness returned neither 0 nor -1");
out:
	free(data);
	fclose(f);
}

static void replay_path(struct replay *r, const char *path)
{
	struct dirent **names = NULL;
	struct stat st;
	int i, n;

	if (stat(path, &st) < 0) {
		complain(r, path, strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		replay_file(r, path, (size_t)st.st_size);
		return;
	}
	n = scandir(path, &names, NULL, alphasort);
	if (n < 0) {
		complain(r, path, strerror(errno));
		return;
	}
	for (i = 0; i < n; i++) {
		char *sub = NULL;

		if (names[i]->d_name[0] != '.') {
			if (asprintf(&sub, "%s/%s", path, names[i]->d_name) < 0)
				complain(r, path, "out of memory");
			else
				replay_path(r, sub);
			free(sub);
		}
		free(names[i]);
	}
	free(names);
}

int main(int argc, char **argv)
{
	struct replay r = { 0 };
	const char *srcdir = getenv("srcdir");
	char *corpus = NULL;
	int i;

	puts("1..1");
	if (argc > 1) {
		for (i = 1; i < argc; i++)
			replay_path(&r, argv[i]);
	} else if (asprintf(&corpus, "%s/tests/fuzz/corpus/" CORPUS, srcdir ? srcdir : ".") < 0) {
		complain(&r, CORPUS, "out of memory");
	} else {
		replay_path(&r, corpus);
		free(corpus);
	}
	if (r.inputs == 0)
		complain(&r, CORPUS, "no input");
	printf("%s 1 - fuzz " CORPUS ": %lu inputs, %lu errors\n", r.errors ? "not ok" : "ok",
	       r.inputs, r.errors);
	return r.errors ? EXIT_FAILURE : EXIT_SUCCESS;
}
