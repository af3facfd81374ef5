/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/blocking_thread.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct blocking_thread {
	pthread_t thread;
	sem_t start;         /* posted for a call and for the end */
	atomic_bool pending; /* a call is submitted and not begun */
	atomic_bool done;    /* the call has returned */
	int done_fd;         /* eventfd */
	bool orphan;         /* the caller has closed this: the thread frees it */

	bool busy; /* the caller's side only: a call is submitted and not collected */

	/* The thread's from start to done. */
	blocking_thread_fn fn;
	size_t size;
	_Alignas(max_align_t) char block[BLOCKING_THREAD_BLOCK_MAX];
};

static void free_thread(struct blocking_thread *k)
{
	if (k->done_fd >= 0)
		close(k->done_fd);
	sem_destroy(&k->start);
	free(k);
}

static void *run_calls(void *arg)
{
	static const uint64_t one = 1;
	struct blocking_thread *k = arg;

	for (;;) {
		while (sem_wait(&k->start))
			; /* EINTR, by a debugger */
		/* The end can be posted before the last call has begun. */
		if (!atomic_exchange_explicit(&k->pending, false, memory_order_acquire))
			break;
		k->fn(k->block);
		atomic_store_explicit(&k->done, true, memory_order_release);
		while (write(k->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
	if (k->orphan)
		free_thread(k);
	return NULL;
}

static int start_thread(struct blocking_thread *k)
{
	long smallest = sysconf(_SC_THREAD_STACK_MIN);
	sigset_t all, mask;
	pthread_attr_t attr;
	int ret;

	ret = pthread_attr_init(&attr);
	if (ret)
		return ret;
	/* The minimum grows with the libraries' thread variables, which lie on the stack. */
	ret = pthread_attr_setstacksize(&attr, BLOCKING_THREAD_STACK +
						       (smallest > 0 ? (size_t)smallest : 0));
	if (!ret) {
		/* The caller's loop handles the signals. */
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &mask);
		ret = pthread_create(&k->thread, &attr, run_calls, k);
		pthread_sigmask(SIG_SETMASK, &mask, NULL);
	}
	pthread_attr_destroy(&attr);
	return ret;
}

int blocking_thread_open(struct blocking_thread **out, struct err *e)
{
	struct blocking_thread *k = calloc(1, sizeof(*k));
	int code;

	*out = NULL;
	if (!k)
		return err_sys(e, ERR_FAILED, ENOMEM, "start a thread for kernel commands");
	sem_init(&k->start, 0, 0);
	k->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = k->done_fd < 0 ? errno : start_thread(k);
	if (code) {
		free_thread(k);
		return err_sys(e, ERR_FAILED, code, "start a thread for kernel commands");
	}
	*out = k;
	return 0;
}

bool blocking_thread_close(struct blocking_thread *k)
{
	pthread_t thread;

	if (!k)
		return true;
	thread = k->thread;
	k->orphan = k->busy && !atomic_load_explicit(&k->done, memory_order_acquire);
	if (k->orphan) {
		pthread_detach(thread);
		sem_post(&k->start);
		return false;
	}
	sem_post(&k->start);
	pthread_join(thread, NULL);
	free_thread(k);
	return true;
}

int blocking_thread_fd(const struct blocking_thread *k)
{
	return k->done_fd;
}

int blocking_thread_submit(struct blocking_thread *k, blocking_thread_fn fn, const void *block,
			   size_t size, struct err *e)
{
	if (size > sizeof(k->block))
		return err_set(e, ERR_FAILED, EINVAL, "a kernel command of %zu bytes", size);
	if (k->busy)
		return err_set(e, ERR_KERNEL, EBUSY, "an earlier kernel command is under way");
	k->fn = fn;
	k->size = size;
	memcpy(k->block, block, size);
	k->busy = true;
	atomic_store_explicit(&k->done, false, memory_order_relaxed);
	atomic_store_explicit(&k->pending, true, memory_order_release);
	sem_post(&k->start);
	return 0;
}

int blocking_thread_collect(struct blocking_thread *k, void *block)
{
	uint64_t count;

	/*
	 * done is set before the event, so that the event read here is never that of a later call.
	 */
	if (!k->busy || read(k->done_fd, &count, sizeof(count)) < 0 ||
	    !atomic_load_explicit(&k->done, memory_order_acquire))
		return -EAGAIN;
	memcpy(block, k->block, k->size);
	k->busy = false;
	return 0;
}
