/*
 * What `socks6` ends with: the table in socks6(1), "EXIT STATUS".
 */
#ifndef CLI_EXIT_H
#define CLI_EXIT_H

enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_REMOTE = 1, /* the remote end failed, or the transfer broke */
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_PROXY = 3 /* the proxy cannot be reached or refused us */
};

#endif
