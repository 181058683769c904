/*
 * `socks6d --status`: asks the daemon at its status socket and prints what it says.
 */
#ifndef PROXYD_STATUS_CLIENT_H
#define PROXYD_STATUS_CLIENT_H

#include "proxyd/config.h"

/* The exit status if no daemon answers: as service scripts have it for a program that is not running. */
#define STATUS_EXIT_NONE 3

/* Writes the document to standard output, or what is wrong to standard error. The process's exit status. */
int status_ask(const char *path);

#endif
