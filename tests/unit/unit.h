/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef UNIT_H
#define UNIT_H

/*
 * What every unit test program shares. unit.c has main(): it runs the suite and prints TAP on
 * standard output, one line per test. Each test runs in a process of its own with Check's time
 * limit; CK_FORK=no in the environment keeps it in this one (for a debugger or valgrind). The
 * program exits with 0 only if at least one test ran and all passed.
 */

#include <stdbool.h>
#include <stddef.h>

#include <check.h>

/* The one function a test program defines; the suite belongs to the caller. */
Suite *unit_suite(void);

/*
 * Path of the recorded file or directory tests/unit/data/NAME, in buf. It is absolute, so that it
 * stays good after chdir(). The test fails here if there is no such file or buf is too small.
 */
void unit_data(char *buf, size_t len, const char *name);

/* Limits and filters of a process would hit valgrind, which has calls and memory of its own. */
bool unit_under_valgrind(void);

#endif
