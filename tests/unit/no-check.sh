#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# Stands in for the unit tests where configure found no Check.
echo "1..0 # SKIP the Check library (check >= 0.15) is missing: no unit test was built"
