/*
 * Asking somebody at a terminal for a password.
 */
#ifndef CLI_ASK_PASSWORD_H
#define CLI_ASK_PASSWORD_H

#include <socks6/types.h>

/*
 * Shows `prompt` on the terminal of this process, whatever standard input is, and reads a line without showing it. 0;
 * -ENXIO without a terminal; -EMSGSIZE: longer than RFC 1929 allows; -EPIPE: the terminal was closed or ended (Ctrl-D);
 * -EILSEQ: a NUL; or another -errno. A signal that ends the process leaves the terminal as it was.
 */
SOCKS6_MUST_CHECK int ask_password(const char *prompt, char out[SOCKS6_PASSWORD_MAX + 1]);

#endif
