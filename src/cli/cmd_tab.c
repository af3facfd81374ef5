/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/nbdtab.h"

enum { LINES_AT_ONCE = 16 };

/* Attaches as a line says. Options of the command line win over those of the line. */
static int attach_line(const struct opts *o, struct nbdtab_entry *en, struct err *e)
{
	struct opts how = { .show = o->show, .client = o->client, .foreground = o->foreground };

	how.index = en->index;
	if (o->persist_counts && !en->persist)
		en->settings.supervision.none = true;
	settings_override(&en->settings, &o->settings);
	if (settings_complete(&en->settings, false, e))
		return err_wrap(e, "line %u", en->line);
	return cmd_attach_settings(&how, &en->settings, e);
}

/* Finds the line of a device. Messages name the file. */
static int find_line(const struct cmd_file *t, unsigned index, struct nbdtab_entry *en,
		     struct err *e)
{
	return nbdtab_find(t->text, t->len, index, en, e) ? err_wrap(e, "%s", t->path) : 0;
}

int cmd_tab(struct opts *o, struct err *e)
{
	struct cmd_file t = { .path = o->nbdtab };
	struct nbdtab_entry *en = malloc(sizeof(*en));
	int ret;

	ret = en ? cmd_read_file(&t, NBDTAB_FILE_MAX, e) : err_sys(e, ERR_FAILED, ENOMEM, "begin");
	if (!ret)
		ret = find_line(&t, o->index, en, e);
	if (!ret)
		ret = attach_line(o, en, e);
	free(t.text);
	free(en);
	return ret;
}

struct job {
	unsigned index;
	bool known; /* index is set */
	pid_t pid;  /* process that attaches; 0: none */
	int fd;     /* pipe from which its struct err is read */
	struct err result;
};

struct jobs {
	struct job *jobs;
	unsigned count, room;
};

static void print_failure(const struct job *j)
{
	if (!j->result.code)
		return;
	if (j->known)
		fprintf(stderr, "nbd-attach: nbd%u: %s\n", j->index, j->result.text);
	else
		fprintf(stderr, "nbd-attach: %s\n", j->result.text);
}

static struct job *add_job(struct jobs *js, struct err *e)
{
	if (js->count == js->room) {
		unsigned room = js->room ? 2 * js->room : 16;
		struct job *more = realloc(js->jobs, room * sizeof(*more));

		if (!more) {
			err_sys(e, ERR_FAILED, ENOMEM, "begin");
			return NULL;
		}
		js->jobs = more;
		js->room = room;
	}
	memset(&js->jobs[js->count], 0, sizeof(*js->jobs));
	return &js->jobs[js->count++];
}

static bool has_job(const struct jobs *js, unsigned index)
{
	for (unsigned i = 0; i < js->count; i++)
		if (js->jobs[i].known && js->jobs[i].index == index)
			return true;
	return false;
}

_Noreturn static void run_job(const struct opts *o, struct nbdtab_entry *en, int fd, pid_t parent)
{
	struct err e = { 0 };

	/* An attach that is under way is undone at SIGTERM. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* After a success e may have the failure of another server. */
	if (getppid() == parent && !attach_line(o, en, &e))
		err_clear(&e);
	if (fflush(stdout) && !e.code)
		err_sys(&e, ERR_FAILED, errno, "write the output");
	/* The parent takes a missing result for a failure. */
	_exit(write(fd, &e, sizeof(e)) == (ssize_t)sizeof(e) ? 0 : 1);
}

static void start_job(const struct opts *o, struct nbdtab_entry *en, struct job *j)
{
	pid_t parent = getpid();
	int fds[2];

	if (pipe2(fds, O_CLOEXEC)) {
		err_sys(&j->result, ERR_FAILED, errno, "begin");
		return;
	}
	j->pid = fork();
	if (!j->pid) {
		close(fds[0]);
		run_job(o, en, fds[1], parent);
	}
	close(fds[1]);
	j->fd = fds[0];
	if (j->pid < 0) {
		err_sys(&j->result, ERR_FAILED, errno, "begin");
		j->pid = 0;
		close(j->fd);
	}
}

static void collect_job(struct job *j)
{
	ssize_t n;

	do {
		n = read(j->fd, &j->result, sizeof(j->result));
	} while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(j->result))
		err_set(&j->result, ERR_FAILED, ECHILD, "its process died");
	close(j->fd);
	while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR)
		;
	j->pid = 0;
	print_failure(j);
}

/* Waits until fewer than limit jobs are running. */
static void await_jobs(struct jobs *js, unsigned limit)
{
	struct pollfd p[LINES_AT_ONCE];
	struct job *of[LINES_AT_ONCE];

	for (;;) {
		unsigned n = 0;

		for (unsigned i = 0; i < js->count; i++) {
			if (!js->jobs[i].pid)
				continue;
			p[n] = (struct pollfd){ .fd = js->jobs[i].fd, .events = POLLIN };
			of[n++] = &js->jobs[i];
		}
		if (n < limit)
			return;
		if (poll(p, n, -1) < 0)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (p[i].revents)
				collect_job(of[i]);
	}
}

/* Begins with a line, unless one of the same device was begun: find_line refuses two lines. */
static int begin_line(const struct opts *o, const struct cmd_file *t, int parsed,
		      struct nbdtab_entry *en, const struct err *why, struct jobs *js,
		      struct err *e)
{
	struct job *j;

	if ((en->has_device && has_job(js, en->index)) || (parsed > 0 && en->no_auto))
		return 0;
	j = add_job(js, e);
	if (!j)
		return -e->code;
	j->known = en->has_device;
	j->index = en->index;
	if (!j->known) {
		j->result = *why;
		err_wrap(&j->result, "%s", t->path);
	} else if (!find_line(t, en->index, en, &j->result)) {
		err_clear(&j->result);
		start_job(o, en, j);
	}
	if (!j->pid)
		print_failure(j);
	return 0;
}

int cmd_all(struct opts *o, struct err *e)
{
	struct cmd_file t = { .path = o->nbdtab };
	struct nbdtab_entry *en = malloc(sizeof(*en));
	struct nbdtab lines = { 0 };
	struct jobs js = { 0 };
	struct err why;
	int parsed, ret;

	ret = en ? cmd_read_file(&t, NBDTAB_FILE_MAX, e) : err_sys(e, ERR_FAILED, ENOMEM, "begin");
	lines.text = t.text;
	lines.len = t.len;
	while (!ret && (parsed = nbdtab_next(&lines, en, &why)) != 0) {
		await_jobs(&js, LINES_AT_ONCE);
		ret = begin_line(o, &t, parsed, en, &why, &js, e);
	}
	await_jobs(&js, 1);
	/* All failures have been printed. */
	for (unsigned i = 0; !ret && i < js.count; i++)
		if (js.jobs[i].result.code)
			ret = err_set(e, js.jobs[i].result.kind, js.jobs[i].result.code, "%s", "");
	free(js.jobs);
	free(t.text);
	free(en);
	return ret;
}
