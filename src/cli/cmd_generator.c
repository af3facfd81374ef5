/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policy/nbdtab.h"

/* Makes DIR/BELOW, and in it a link to the service of a device. */
static int add_wants(const char *dir, const char *below, unsigned index, struct err *e)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/%s", dir, below);

	if (n < 0 || (size_t)n + 64 > sizeof(path))
		return err_set(e, ERR_FAILED, ENAMETOOLONG, "%s: the name is too long", dir);
	if (mkdir(path, 0755) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make directory %s", path);
	snprintf(path + n, sizeof(path) - (size_t)n, "/nbd-attach@nbd%u.service", index);
	if (symlink(NBD_ATTACH_UNITDIR "/nbd-attach@.service", path) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make link %s", path);
	return 0;
}

/* The device wants its service, and so does the boot unless the line has noauto. */
static int write_links(const char *dir, const struct nbdtab_entry *en, struct err *e)
{
	char device[64];
	int ret;

	snprintf(device, sizeof(device), "dev-nbd%u.device.wants", en->index);
	ret = add_wants(dir, device, en->index, e);
	return ret || en->no_auto ? ret : add_wants(dir, "remote-fs.target.wants", en->index, e);
}

/* The standard error of a generator is lost: messages go to the log as well. */
static void log_failure(enum log_level level, bool by_hand, const char *path, const struct err *e)
{
	fprintf(stderr, "nbd-attach-generator: %s: %s\n", path, e->text);
	if (!by_hand)
		log_say(&cmd_logger, level, "%s: %s", path, e->text);
}

bool cmd_is_generator(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	return argv0 && !strcmp(slash ? slash + 1 : argv0, "nbd-attach-generator");
}

int cmd_generator(int argc, char *argv[], struct err *e)
{
	const char *other = getenv("NBD_ATTACH_NBDTAB");
	struct cmd_file file = { .path = other ? other : NBD_ATTACH_NBDTAB };
	struct nbdtab_entry *en = malloc(sizeof(*en)), *found = malloc(sizeof(*found));
	struct nbdtab t = { 0 };
	struct err why;
	int ret, parsed;

	if (argc != 2 && argc != 4) {
		ret = err_set(e, ERR_USAGE, EINVAL,
			      "systemd calls this, with its directory for units");
		fprintf(stderr, "nbd-attach-generator: %s\n", e->text);
		goto out;
	}
	ret = en && found ? cmd_read_file(&file, NBDTAB_FILE_MAX, e) :
			    err_sys(e, ERR_FAILED, ENOMEM, "begin");
	if (ret == -ENOENT) {
		err_clear(e);
		ret = 0;
	}
	t.text = file.text;
	t.len = file.len;
	while (!ret && (parsed = nbdtab_next(&t, en, &why)) != 0) {
		/* Of two lines for one device neither counts. */
		if (parsed > 0)
			parsed = nbdtab_find(file.text, file.len, en->index, found, &why);
		if (parsed < 0)
			log_failure(LOG_LEVEL_WARNING, other, file.path, &why);
		else
			ret = write_links(argv[1], found, e);
	}
	if (ret)
		log_failure(LOG_LEVEL_ERROR, other, file.path, e);
out:
	free(file.text);
	free(found);
	free(en);
	return ret;
}
