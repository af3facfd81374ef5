/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * command: the thread that gives commands to the driver, one at a time. It compares the identity
 * of the device (index, backend, pid) directly before each command, and once more after an
 * offer; a socket that went astray is cut. Commands take the mutex of generic netlink, which
 * another command on the machine may hold for long (docs/nbd-driver.md, Netlink). A thread that
 * waits for it outlives the supervisor when that is killed: its command is carried out all the
 * same.
 *
 * Excused: another tool that detaches and attaches between the comparison and the command. That
 * is modelled for offers only, which can be taken back; for resize and disconnect nothing can be
 * done.
 */
#ifndef NBD_ATTACH_SIM_COMMAND_H
#define NBD_ATTACH_SIM_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

struct world;

enum command_kind { COMMAND_OFFER, COMMAND_PROBE, COMMAND_RESIZE, COMMAND_DISCONNECT };

struct command {
	bool busy;
	enum command_kind kind;
	unsigned conn;
	uint64_t size;
	unsigned life; /* number of the supervisor behind it */
	unsigned serial;
	long long given_at, jumped;
	long long done_at; /* end of the last command */
	bool resizing;     /* a RESIZE is with the driver */
	bool hang_noted;
	long long mutex_free; /* end of the time that somebody else has the mutex */
	bool fails;           /* some offers, probes and changes of the size are refused */
	unsigned astray;      /* number of the offer that another tool overtakes; 0: none */
};

void command_begin(struct world *w);
void command_give(struct world *w, enum command_kind kind, unsigned conn, uint64_t size);

/* The driver has carried out a RESIZE that it had to wait for. */
void command_resized(struct world *w);

#endif
