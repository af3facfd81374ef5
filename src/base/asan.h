/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * asan: SANITIZED, 1 in a program built with AddressSanitizer by gcc or clang, else 0. Such a
 * program maps more memory than any limit permits and makes system calls that no other build
 * makes.
 */
#ifndef NBD_ATTACH_ASAN_H
#define NBD_ATTACH_ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
