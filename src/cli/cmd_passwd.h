/*
 * `socks6 passwd FILE NAME`: writes the users file of socks6d(8), as htpasswd(1) does for web servers.
 */
#ifndef CLI_CMD_PASSWD_H
#define CLI_CMD_PASSWD_H

#include "cli/proxy.h"

int cmd_passwd(struct proxy_options *proxy, int argc, char **argv);

#endif
