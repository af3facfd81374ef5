/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/module.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <libkmod.h>

/* libkmod's own messages would go to stderr, which belongs to the command line. */
static void no_log(void *data, int priority, const char *file, int line, const char *fn,
		   const char *format, va_list args)
{
	(void)data, (void)priority, (void)file, (void)line, (void)fn, (void)format, (void)args;
}

/* The meanings of finit_module(2)'s codes, where strerror(3) misleads. */
static const struct {
	int code;
	const char *words;
} meanings[] = {
	{ EPERM, "not permitted" },
	{ ENOSYS, "the running kernel loads no modules" },
	{ ENOENT, "its file or something that it needs is missing" },
	{ ENOEXEC, "it is broken or not for the running kernel" },
	{ EKEYREJECTED, "the running kernel does not trust its signature" },
};

static int report_refusal(const char *name, int code, struct err *e)
{
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (meanings[i].code == code)
			return err_set(e, ERR_KERNEL, code, "load kernel module %s: %s", name,
				       meanings[i].words);
	return err_sys(e, ERR_KERNEL, code, "load kernel module %s", name);
}

/* Asks /sys/module: a kernel that has everything built in may have no module directory. */
static bool is_in_kernel(struct kmod_ctx *ctx, const char *name)
{
	struct kmod_module *mod = NULL;
	bool there;

	if (kmod_module_new_from_name(ctx, name, &mod) < 0)
		return false;
	there = kmod_module_get_initstate(mod) >= 0;
	kmod_module_unref(mod);
	return there;
}

static int insert_module(struct kmod_module *mod, const char *name, struct err *e)
{
	/* As modprobe does: a blacklist stops aliases and not the name itself. */
	int r = kmod_module_probe_insert_module(mod, KMOD_PROBE_APPLY_BLACKLIST_ALIAS_ONLY, NULL,
						NULL, NULL, NULL);

	if (r > 0)
		return err_set(e, ERR_KERNEL, EPERM,
			       "load kernel module %s: it is blacklisted in modprobe.d", name);
	/* The code is the exit status of the command then, not an errno. */
	if (r < 0 && kmod_module_get_install_commands(mod))
		return err_set(e, ERR_KERNEL, EPERM,
			       "load kernel module %s: its install command in modprobe.d failed",
			       name);
	return r < 0 ? report_refusal(name, -r, e) : 0;
}

static int report_not_found(struct kmod_ctx *ctx, const char *name, struct err *e)
{
	const char *dir = kmod_get_dirname(ctx);
	struct utsname u;

	if (uname(&u))
		return err_sys(e, ERR_KERNEL, errno, "uname");
	/* Between an upgrade of the kernel and the reboot the old modules are often gone. */
	if (dir && access(dir, F_OK))
		return err_set(e, ERR_KERNEL, ENOENT,
			       "no kernel module %s: the running kernel %s has no modules in %s",
			       name, u.release, dir);
	return err_set(e, ERR_KERNEL, ENOENT, "no kernel module %s for the running kernel %s", name,
		       u.release);
}

int module_load(const char *name, struct err *e)
{
	struct kmod_list *list = NULL, *item;
	struct kmod_ctx *ctx;
	int r;

	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return err_set(e, ERR_KERNEL, ENOMEM, "load kernel module %s: no libkmod context",
			       name);
	kmod_set_log_fn(ctx, no_log, NULL);
	r = kmod_module_new_from_lookup(ctx, name, &list);
	/* -ENOENT: an index is missing. */
	if (r < 0 && r != -ENOENT) {
		r = err_sys(e, ERR_KERNEL, -r, "look up kernel module %s", name);
		goto out;
	}
	r = 0;
	if (!list) {
		if (!is_in_kernel(ctx, name))
			r = report_not_found(ctx, name, e);
		goto out;
	}
	kmod_list_foreach(item, list)
	{
		struct kmod_module *mod = kmod_module_get_module(item);

		r = insert_module(mod, name, e);
		kmod_module_unref(mod);
		if (r)
			break;
	}
out:
	kmod_module_unref_list(list);
	kmod_unref(ctx);
	return r;
}
