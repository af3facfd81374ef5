/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef FUZZ_H
#define FUZZ_H

/*
 * A fuzz harness is one function, linked with libFuzzer's main() to search for inputs and with
 * replay.c's to run the ones that are kept in corpus/. It returns 0, or -1 for an input not worth
 * keeping; it fails by crashing (abort, sanitizer).
 */

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
