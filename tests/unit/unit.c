// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
#include "unit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It preloads what is called vgpreload. */
bool unit_under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

void unit_data(char *buf, size_t len, const char *name)
{
	const char *srcdir = getenv("srcdir");
	char path[PATH_MAX], full[PATH_MAX];
	int n;

	n = snprintf(path, sizeof(path), "%s/tests/unit/data/%s", srcdir ? srcdir : ".", name);
	ck_assert_msg(n > 0 && (size_t)n < sizeof(path), "name too long: %s", name);
	ck_assert_msg(realpath(path, full) != NULL,
		      "no %s (run from the build directory with srcdir set to the source tree)",
		      path);
	n = snprintf(buf, len, "%s", full);
	ck_assert_msg(n > 0 && (size_t)n < len, "buffer too small for %s", full);
}

int main(void)
{
	int failed, run;
	SRunner *sr;

	/* Tests fork: what is still in a buffer then would be printed twice. */
	setvbuf(stdout, NULL, _IOLBF, 0);

	sr = srunner_create(unit_suite());
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	run = srunner_ntests_run(sr);
	srunner_free(sr);

	if (run == 0) {
		puts("Bail out! the suite has no tests");
		return EXIT_FAILURE;
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
