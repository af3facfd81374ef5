#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# The simulation can fail: faults planted in the models around the core break the rules.

exec tests/sim/sim -p
