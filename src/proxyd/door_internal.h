/*
 * Between door.c, which knows all versions, and door_socks6.c, which answers the questions of the SOCKS 6 machine.
 */
#ifndef PROXYD_DOOR_INTERNAL_H
#define PROXYD_DOOR_INTERNAL_H

#include "proxyd/door.h"

/* door.c */
enum door_status door_close(struct door *door, const char *why);
/* DOOR_MORE: the verdict is there and was taken; DOOR_WAIT: it will be; DOOR_CLOSED. */
enum door_status door_log_in(struct door *door, const struct socks6_credentials *credentials);

/* door_socks6.c */
SOCKS6_MUST_CHECK /* Whoever has shown a certificate of a user comes in as that, if there still is one of this name. True: it is so. */
    bool
    door_let_certified_in(struct door *door);
/* As the reason of a refusal, where it is one; else NULL. */
const char *door_why_not_certified(const struct door *door);
bool door_socks6_init(struct door *door, uint64_t now_ms);
enum door_status door_socks6_input(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used);
void door_socks6_logged_in(struct door *door, bool is_good);

#endif
