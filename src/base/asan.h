/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sanitized: whether AddressSanitizer is in this program (gcc and clang say so in ways of their own), which has
 * more memory mapped than any limit permits and makes system calls that nobody else makes.
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
