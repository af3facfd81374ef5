/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* Credentials, mistakes in them, and which ciphers they allow. */
#include "net/tls_creds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../leak.h"
#include "../tlstalk.h"
#include "../unit.h"

/* --- mistakes that are found before anybody is contacted -------------------------------------- */

static const struct {
	const char *name;
	struct tls_params params;
	enum err_kind kind;
	int code;
	const char *text[3];
} mistakes[] = {
	{ "key and authority",
	  { .psk_file = "one.psk", .ca = "ca.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and revocation",
	  { .psk_file = "one.psk", .crl = "crl.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and certificate",
	  { .psk_file = "one.psk", .cert = "client.pem", .key = "client-key.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and no verification",
	  { .psk_file = "one.psk", .no_verify = true },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "user without keys",
	  { X509, .psk_user = "alice" },
	  ERR_USAGE,
	  EINVAL,
	  { "no key file" } },
	{ "certificate without key",
	  { X509, .cert = "client.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "belong together" } },
	{ "key without certificate",
	  { X509, .key = "client-key.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "belong together" } },
	{ "nobody is expected", { .ca = "ca.pem" }, ERR_USAGE, EINVAL, { "--tls-hostname" } },
	{ "nobody at all", { .priority = "NORMAL" }, ERR_USAGE, EINVAL, { "--tls-hostname" } },
	{ "bad priority",
	  { X509, .priority = "NORMAL:+BOGUS" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string", "BOGUS" } },
	{ "hostile priority",
	  { X509, .priority = "\x1b[2J" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string", "\\x1b[2J" } },
	{ "priority without anything",
	  { X509, .priority = "NONE:" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string" } },
	{ "no file of authorities",
	  { .ca = "none.pem", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities none.pem" } },
	{ "hostile file name",
	  { .ca = "n\n.pem", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities n\\x0a.pem" } },
	{ "no authorities in it",
	  { .ca = "empty", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities empty" } },
	{ "junk for authorities",
	  { .ca = "junk", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities junk" } },
	{ "no revocation list",
	  { X509, .crl = "none.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "revocation list none.pem" } },
	{ "nothing in it", { X509, .crl = "empty" }, ERR_TLS, EINVAL, { "revocation list empty" } },
	{ "no certificate",
	  { X509, .cert = "none.pem", .key = "client-key.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate and key none.pem" } },
	{ "no private key",
	  { X509, .cert = "client.pem", .key = "none.pem" },
	  ERR_TLS,
	  ENOENT,
	  { "private key none.pem" } },
	{ "another's private key",
	  { X509, .cert = "client.pem", .key = "other-client-key.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate and key client.pem" } },
	{ "PIN that is not there",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?pin-source=file:no%6ee" },
	  ERR_TLS,
	  ENOENT,
	  { "PIN none: No such file" } },
	{ "PIN that others read",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?a=b&pin-source=readable.psk&c" },
	  ERR_TLS,
	  EACCES,
	  { "PIN readable.psk", "mode 644", "chmod 600" } },
	{ "PIN by half an escape",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?pin-source=file:///none%" },
	  ERR_TLS,
	  ENOENT,
	  { "PIN /none%: No such file" } },
	{ "private key that others read",
	  { X509, .cert = "client.pem", .key = "readable-key.pem" },
	  ERR_TLS,
	  EACCES,
	  { "private key readable-key.pem", "mode 604", "chmod 600" } },
	{ "no key file", { .psk_file = "none.psk" }, ERR_TLS, ENOENT, { "key file none.psk" } },
	{ "key file that others read",
	  { .psk_file = "readable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file readable.psk", "mode 644", "chmod 600" } },
	{ "key file that others write",
	  { .psk_file = "writable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file writable.psk", "mode 602" } },
	{ "key file that the group writes",
	  { .psk_file = "group-writable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file group-writable.psk", "mode 620" } },
	{ "key file is empty", { .psk_file = "empty" }, ERR_TLS, ENOKEY, { "key file empty" } },
	{ "key file is a directory",
	  { .psk_file = "private" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file private" } },
	{ "key file without users",
	  { .psk_file = "no-user.psk" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file no-user.psk" } },
	{ "no such user",
	  { .psk_file = "many.psk", .psk_user = "dave" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file many.psk", "no key for the user" } },
	{ "which user",
	  { .psk_file = "many.psk" },
	  ERR_USAGE,
	  EINVAL,
	  { "key file many.psk", "more than one user", "--tls-psk-user" } },
	{ "part of a user's name",
	  { .psk_file = "many.psk", .psk_user = "ali" },
	  ERR_TLS,
	  ENOKEY,
	  { "no key for the user" } },
	{ "key not hexadecimal",
	  { .psk_file = "bad.psk" },
	  ERR_TLS,
	  EINVAL,
	  { "key file bad.psk" } },
	{ "half a byte", { .psk_file = "odd.psk" }, ERR_TLS, EINVAL, { "key file odd.psk" } },
	{ "empty key", { .psk_file = "no-key.psk" }, ERR_TLS, EINVAL, { "key file no-key.psk" } },
	{ "user's name too long",
	  { .psk_file = "long.psk" },
	  ERR_TLS,
	  ENAMETOOLONG,
	  { "key file long.psk", "too long" } },
};

START_TEST(mistake)
{
	struct tls_creds *creds = (struct tls_creds *)&creds;
	unsigned fds = leak_fds();
	struct err e = { 0 };
	char line[400];

	cert_write(&talk_certs[CLIENT], ".", NULL, "readable-key.pem");
	ck_assert_int_eq(chmod("readable-key.pem", 0604), 0);
	memset(line, 'u', 256);
	strcpy(line + 256, ":0011\n");
	peer_file(".", "long.psk", line, 0600);
	mkdir("private", 0700);
	ck_assert_msg(tls_creds_load(&creds, &mistakes[_i].params, &e) == -mistakes[_i].code,
		      "%s: %d, %s", mistakes[_i].name, e.code, e.text);
	ck_assert_ptr_null(creds);
	ck_assert_int_eq(e.kind, mistakes[_i].kind);
	ck_assert_int_eq(e.code, mistakes[_i].code);
	talk_check_text(&e, mistakes[_i].text, COUNT(mistakes[_i].text));
	/* No error shows a part of a secret. */
	ck_assert_ptr_null(strstr(e.text, "0011"));
	ck_assert_ptr_null(strstr(e.text, "hexadecimal\""));
	ck_assert_uint_eq(leak_fds(), fds);
}
END_TEST

START_TEST(nothing_to_free)
{
	tls_creds_free(NULL);
}
END_TEST

/* --- directories ------------------------------------------------------------------------------ */

START_TEST(directories)
{
	struct tls_params p = { 0 };
	struct err e = { 0 };
	char longest[TLS_PATH_MAX + 2];

	mkdir("d", 0700);
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_TLS);
	talk_check_text(&e, (const char *const[]){ "directory d", "no ca-cert.pem" }, 2);
	ck_assert_int_eq(tls_use_directory(&p, "nowhere\n", &e), -ENOENT);
	talk_check_text(&e, (const char *const[]){ "directory nowhere\\x0a" }, 1);

	cert_write(&talk_certs[CA], "d", "ca-cert.pem", NULL);
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.ca, "d/ca-cert.pem");
	ck_assert(!p.crl[0] && !p.cert[0] && !p.key[0] && !p.psk_file[0] && !p.no_verify);

	crl_write(&talk_certs[CA], NULL, 0, 0, "d", "ca-crl.pem");
	cert_write(&talk_certs[CLIENT], "d", "client-cert.pem", NULL);
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), -ENOENT);
	talk_check_text(&e, (const char *const[]){ "client-cert.pem without a client-key.pem" }, 1);
	cert_write(&talk_certs[CLIENT], "d", NULL, "client-key.pem");
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.crl, "d/ca-crl.pem");
	ck_assert_str_eq(p.cert, "d/client-cert.pem");
	ck_assert_str_eq(p.key, "d/client-key.pem");

	/* what is given stays */
	p = (struct tls_params){ .ca = "ca", .crl = "crl", .cert = "cert", .key = "key" };
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.ca, "ca");
	ck_assert_str_eq(p.crl, "crl");
	ck_assert_str_eq(p.cert, "cert");
	ck_assert_str_eq(p.key, "key");

	memset(longest, 'x', sizeof(longest));
	longest[TLS_PATH_MAX] = '\0';
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, longest, &e), -ENAMETOOLONG);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	/* of what can be there, none is cut */
	strcpy(longest, "d");
	for (size_t n = 1; n < TLS_PATH_MAX - 21; n += 2)
		strcpy(longest + n, "/.");
	ck_assert_int_eq(tls_use_directory(&p, longest, &e), 0);
	ck_assert_uint_gt(strlen(p.cert), 1000);
	ck_assert_int_eq(access(p.cert, R_OK), 0);
	ck_assert_int_eq(access(p.key, R_OK), 0);
}
END_TEST

/* --- sessions of the same credentials --------------------------------------------------------- */

/* The files are read once. */
START_TEST(shared)
{
	struct tls_params params = { .psk_file = "shared.psk" };
	struct peer_spec spec = { .psk_file = "one.psk", .priority = talk_versions[_i] };
	struct talk first, second = { .ret = 0 };
	int fds[2];

	peer_file(".", "shared.psk", "alice:00112233445566778899aabbccddeeff\n", 0600);
	talk_begin(&first, &params, &spec);
	ck_assert_int_eq(unlink("shared.psk"), 0);
	peer_unix(fds);
	second.fd = fds[0];
	peer_open(&second.p, fds[1], &spec);
	ck_assert_msg(!tls_new(&second.t, first.creds, &second.e), "%s", second.e.text);
	talk_handshake(&second);
	ck_assert_msg(!second.ret, "%s", second.e.text);
	talk_exchange(&second);
	talk_finish(&second);
	/* The end of one is not the end of the other. */
	talk_handshake(&first);
	ck_assert_msg(!first.ret, "%s", first.e.text);
	talk_exchange(&first);
	talk_finish(&first);
}
END_TEST

/* --- ciphers ---------------------------------------------------------------------------------- */

/*
 * Nobody has asked for a cipher: the fastest for this processor, of those that the kernel can
 * have.
 */
START_TEST(which_cipher)
{
	bool tls13 = _i % 2, psk = _i / 2;
	struct tls_params params = { X509 }, keys = { .psk_file = "one.psk" };
	struct peer_spec spec = {
		.cert = psk ? NULL : &talk_certs[SERVER],
		.psk_file = psk ? "one.psk" : NULL,
		.priority = talk_versions[tls13],
	};
	const char *fast = "CHACHA20-POLY1305";
	struct tls_info info;
	struct talk k;

#if defined(__x86_64__)
	/*
	 * in TLS 1.2 there is no AES-GCM with ECDHE-PSK, which hides the past even if the key is
	 * lost
	 */
	if ((tls13 || !psk) && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul"))
		fast = "AES-128-GCM";
#else
	return;
#endif
	talk_begin(&k, psk ? &keys : &params, &spec);
	talk_handshake(&k);
	ck_assert_msg(!k.ret, "%s", k.e.text);
	tls_describe(k.t, &info);
	ck_assert_str_eq(info.cipher, fast);
	talk_exchange(&k);
	talk_finish(&k);
}
END_TEST

/* The order has changed, not what is taken. */
START_TEST(every_cipher)
{
	static const char *const ciphers[] = {
		"AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM",
		"AES-256-CCM", "AES-128-CBC", "AES-256-CBC",
	};
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &talk_certs[SERVER] };
	char priority[100];
	struct tls_info info;
	struct talk k;

	for (size_t i = 0; i < COUNT(ciphers); i++) {
		snprintf(priority, sizeof(priority),
			 "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+%s", ciphers[i]);
		spec.priority = priority;
		talk_begin(&k, &params, &spec);
		talk_handshake(&k);
		ck_assert_msg(!k.ret, "%s: %s", ciphers[i], k.e.text);
		tls_describe(k.t, &info);
		ck_assert_str_eq(info.cipher, ciphers[i]);
		talk_finish(&k);
	}
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("tls_creds");
	TCase *t = tcase_create("tls_creds");

	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, talk_setup, talk_teardown);
	tcase_add_loop_test(t, mistake, 0, (int)COUNT(mistakes));
	tcase_add_test(t, nothing_to_free);
	tcase_add_test(t, directories);
	tcase_add_loop_test(t, shared, 0, 2);
	tcase_add_loop_test(t, which_cipher, 0, 4);
	tcase_add_test(t, every_cipher);
	suite_add_tcase(s, t);
	return s;
}
