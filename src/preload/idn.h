/*
 * Internationalized names in getaddrinfo(3) and getnameinfo(3): AI_IDN, AI_CANONIDN, NI_IDN. As in libc, libidn2 does the work
 * if it is installed, is loaded only when a name is not plain, and without it only plain names are had.
 */
#ifndef PRELOAD_IDN_H
#define PRELOAD_IDN_H

#include <socks6/types.h>

/* In the locale's character set to "xn--" form: 0 and `out`, the caller's to free(3), NULL if the name is plain; or EAI_IDN_ENCODE. */
SOCKS6_MUST_CHECK int idn_encode(const char *name, char **out);
/* The other way round: always a copy, of `name` itself if there is nothing to decode. 0, EAI_MEMORY or EAI_IDN_ENCODE. */
SOCKS6_MUST_CHECK int idn_decode(const char *name, char **out);

#endif
