/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * cmd: the commands of nbd-attach, one function each. They print results on stdout and notes on
 * stderr; a failure is returned with its text in e for main to print.
 */
#ifndef NBD_ATTACH_CMD_H
#define NBD_ATTACH_CMD_H

#include "base/err.h"
#include "net/connect.h"
#include "cli/opts.h"
#include "daemon/launch.h"

/* Commands return 0 or -errno. Where they connect to a server they prepare o->settings. */
int cmd_attach(struct opts *o, struct err *e);
int cmd_tab(struct opts *o, struct err *e);
int cmd_all(struct opts *o, struct err *e); /* failures are printed, the text is "" */
int cmd_detach(struct opts *o, struct err *e);
int cmd_control(struct opts *o, struct err *e); /* --pause, --resume, --rescan */
int cmd_adopt(struct opts *o, struct err *e);
int cmd_list(struct opts *o, struct err *e);
int cmd_exports(struct opts *o, struct err *e);
int cmd_info(struct opts *o, struct err *e);
int cmd_map(struct opts *o, struct err *e);

/*
 * As nbd-client -check: prints the pid and returns 0; -ENODEV without any text when the device is
 * not attached. Looks at sysfs only.
 */
int cmd_check(struct opts *o, struct err *e);

/* Runs the command line of nbd-client. Returns the exit status; e has the text of a failure. */
int cmd_client(int argc, char *argv[], struct err *e);

/* Whether the program was called as a generator of systemd. */
bool cmd_is_generator(const char *argv0);

/*
 * Writes the links of systemd.generator(7) for the lines of the nbdtab (or of $NBD_ATTACH_NBDTAB)
 * into the directory argv[1]. Lines that are wrong are left out, a missing file is no error. Errors
 * are printed, and are in the system's log.
 */
int cmd_generator(int argc, char *argv[], struct err *e);

/* What a server says about an export. */
struct cmd_facts {
	struct connections link;
	char *contexts; /* names of its meta contexts, comma-separated; NULL: unknown */
	bool failed;    /* no memory; internal to cmd_find_out */
};

/*
 * Asks the server about its export (NEG_GOAL_INFO). s are the settings of l. f is for cmd_forget,
 * also after a failure.
 */
int cmd_find_out(struct connector *l, const struct settings *s, struct cmd_facts *f, struct err *e);
void cmd_forget(struct cmd_facts *f);

/* Names of flags, "READ_ONLY,SEND_FLUSH". A bit without a name has its number. */
void cmd_name_flags(uint16_t flags, char *buf, size_t cap);

/*
 * Adds to complete settings what depends on this process: where the credentials are, the number of
 * connections for "auto", and the working directory, so that all file names are absolute. Warns as
 * cmd_warn_unverified. ERR_USAGE, ERR_TLS.
 */
int cmd_prepare_settings(struct settings *s, struct err *e);
/* Warns on standard error where the server's certificate is not verified. */
void cmd_warn_unverified(const struct settings *s);

/* Attaches as s says, instead of o->settings: for a line of the nbdtab. */
int cmd_attach_settings(const struct opts *o, struct settings *s, struct err *e);

/*
 * Fills rq, but for the device and the callback, which its caller sets. s and logger have to
 * outlive it. rq is for cmd_end_launch, also after a failure.
 */
int cmd_begin_launch(struct launch_request *rq, const struct settings *s, struct log *logger,
		     struct err *e);
void cmd_end_launch(struct launch_request *rq);

struct cmd_file {
	const char *path;
	char *text;
	size_t len;
};

/* Reads a regular file of less than max bytes. The caller frees f->text, also after a failure. */
int cmd_read_file(struct cmd_file *f, size_t max, struct err *e);

/* Logger that writes to the system's log, or to the kernel's where there is none. */
extern const struct log cmd_logger;

/*
 * Calls act for each device of the command line. All are tried. The first failure is returned, the
 * others are printed.
 */
int cmd_each(const struct opts *o,
	     int (*act)(const struct opts *o, const char *operand, struct err *e), struct err *e);

#endif
