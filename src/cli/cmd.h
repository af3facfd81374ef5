/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cmd: what nbd-attach can be asked to do, one function for each. They print results on stdout
 * and notes on stderr; a failure is returned with its text in e for main to print.
 */
#ifndef NBD_ATTACH_CMD_H
#define NBD_ATTACH_CMD_H

#include "base/err.h"
#include "net/connect.h"
#include "cli/opts.h"
#include "daemon/launch.h"

/* Return 0 or -errno. Those that connect to a server change o->settings as cmd_prepare_settings does. */
int cmd_attach(struct opts *o, struct err *e);
int cmd_tab(const struct opts *o, struct err *e);
int cmd_all(const struct opts *o, struct err *e); /* each failure has been told, the text is "" */
int cmd_detach(const struct opts *o, struct err *e);
int cmd_control(const struct opts *o, struct err *e); /* --pause, --resume, --rescan */
int cmd_adopt(const struct opts *o, struct err *e);
int cmd_list(const struct opts *o, struct err *e);
int cmd_exports(struct opts *o, struct err *e);
int cmd_info(struct opts *o, struct err *e);
int cmd_map(struct opts *o, struct err *e);

/*
 * As nbd-client -check: prints the pid and returns 0; -ENODEV without any text when the device is not
 * attached. Looks at sysfs only.
 */
int cmd_check(const struct opts *o, struct err *e);

/*
 * All of a run as nbd-client: its output and its exit status, which is returned; e has the text of a failure,
 * if there is one.
 */
int cmd_client(int argc, char *argv[], struct err *e);

/* Whether we are called as a generator of systemd's. */
bool cmd_is_generator(const char *argv0);

/*
 * Writes what systemd.generator(7) wants for the lines of the nbdtab (or of $NBD_ATTACH_NBDTAB) into the first directory
 * that it names. Lines that are wrong are left out; no file is no error. All errors have been told, in the system's log too.
 */
int cmd_generator(int argc, char *argv[], struct err *e);

/* What a server says about an export. */
struct cmd_facts {
	struct connections link;
	char *contexts; /* names of its meta contexts, comma-separated; NULL: unknown */
	bool failed;    /* the rest is the function's */
};

/*
 * Asks about the export of l, whose settings s are (NEG_GOAL_INFO). Whatever it returns, f is to be given to
 * cmd_forget.
 */
int cmd_find_out(struct connector *l, const struct settings *s, struct cmd_facts *f, struct err *e);
void cmd_forget(struct cmd_facts *f);

/* "READ_ONLY,SEND_FLUSH"; bits without a name by their number. */
void cmd_name_flags(uint16_t flags, char *buf, size_t cap);

/*
 * What the settings of an attach or a question need from this process: where the credentials are, the number of
 * connections for "auto", and names of files and sockets that do not depend on the working directory. Warns on standard
 * error of a certificate that is not verified.
 */
int cmd_prepare_settings(struct settings *s, struct err *e);
void cmd_warn_unverified(const struct settings *s);

/* As cmd_attach, the settings being a line of the nbdtab's; o is how it is done. */
int cmd_attach_settings(const struct opts *o, struct settings *s, struct err *e);

/*
 * What a launch needs besides settings, which have to outlive it. rq has to be zero but for what its caller sets, and is
 * let go of by cmd_end_launch also after a failure. logger is what rq's may become.
 */
int cmd_begin_launch(struct launch_request *rq, const struct settings *s, struct log *logger,
		     struct err *e);
void cmd_end_launch(struct launch_request *rq);

struct cmd_file {
	const char *path;
	char *text;
	size_t len;
};

/* All of a regular file of less than max bytes. f->text is the caller's to be freed, also after a failure. */
int cmd_read_file(struct cmd_file *f, size_t max, struct err *e);

/* The system's log, or the kernel's where there is none. */
extern const struct log cmd_logger;

/*
 * act for each device of the command line. All are tried; the first failure is the one that is
 * returned, the others are only told.
 */
int cmd_each(const struct opts *o,
	     int (*act)(const struct opts *o, const char *operand, struct err *e), struct err *e);

#endif
