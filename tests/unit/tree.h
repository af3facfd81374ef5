/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef TREE_H
#define TREE_H

/*
 * Small trees of files that stand for /sys and /proc, in a temporary directory that goes when the
 * test case ends. A failing call fails the test.
 */

#include <check.h>

/* Adds the fixture that makes and removes the temporary directory. */
void tree_fixture(TCase *tc);

/* A new, empty directory as a descriptor. */
int tree_new(void);

/*
 * A file, a symbolic link or a directory below at. Directories on the way are made; a file or link
 * that was there is replaced.
 */
void tree_put(int at, const char *path, const char *text);
void tree_link(int at, const char *path, const char *target);
void tree_mkdir(int at, const char *path);

/* The recorded directory tests/unit/data/NAME: as a descriptor, or copied to a new directory. */
int tree_recorded(const char *name);
int tree_copy(const char *name);

/* Text of the file in a static buffer. */
const char *tree_text(int at, const char *path);

#endif
