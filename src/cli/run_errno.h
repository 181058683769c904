/*
 * The outcome of a dial as connect(2) says it. Used by run_connect.c.
 */
#ifndef CLI_RUN_ERRNO_H
#define CLI_RUN_ERRNO_H

#include <socks6/dial.h>

/* The errno with which connect(2) fails where no proxy is between: for enum socks6_dial_status other than OK. */
int run_errno(int status, const struct socks6_dial_result *result);

#endif
