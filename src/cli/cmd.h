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

/* Return 0 or -errno. */
int cmd_attach(const struct opts *o, struct err *e);
int cmd_tab(const struct opts *o, struct err *e);
int cmd_all(const struct opts *o, struct err *e); /* each failure has been told, the text is "" */
int cmd_detach(const struct opts *o, struct err *e);
int cmd_control(const struct opts *o, struct err *e); /* --pause, --resume, --rescan */
int cmd_adopt(const struct opts *o, struct err *e);
int cmd_list(const struct opts *o, struct err *e);
int cmd_exports(const struct opts *o, struct err *e);
int cmd_info(const struct opts *o, struct err *e);
int cmd_map(const struct opts *o, struct err *e);

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
 * Asks about the export of l's request (NEG_GOAL_INFO). Whatever it returns, f is to be given to
 * cmd_forget.
 */
int cmd_find_out(struct connector *l, const struct target *rq, struct cmd_facts *f, struct err *e);
void cmd_forget(struct cmd_facts *f);

/* "READ_ONLY,SEND_FLUSH"; bits without a name by their number. */
void cmd_name_flags(uint16_t flags, char *buf, size_t cap);

/* What -C auto wants, where it is safe. */
uint32_t cmd_automatic_connections(void);

/* The request that the options make: where, command, deadline. */
int cmd_link_request(const struct opts *o, enum neg_goal goal, struct target *rq, struct err *e);

/* Names of files and sockets in the request that are relative to the working directory no more. -ENAMETOOLONG. */
int cmd_make_absolute(struct target *rq, struct err *e);

/*
 * All that an attach, or an adoption, needs to know, also on failure for cmd_forget_worker; logger is what rq's may
 * become. rq has to be zero.
 */
int cmd_worker_request(const struct opts *o, struct launch_request *rq, struct log *logger,
		       struct err *e);
void cmd_forget_worker(struct launch_request *rq);

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
