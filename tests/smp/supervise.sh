#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 900
#
# What tests/vm/endure.sh proves, on two processors and with the usual kernel; shorter.

export ROUNDS=${ROUNDS:-4} AWAY=${AWAY:-2} DEVICES=${DEVICES:-8} PASSES=${PASSES:-one four kernel many}
exec "${BASH_SOURCE[0]%/*}/../vm/endure.sh"
