/*
 * A server or client machine on the bench: bytes go in as hexadecimal text, and what comes out is compared with such.
 * Everything asserts by itself.
 */
#ifndef TEST_CORE_RIG_H
#define TEST_CORE_RIG_H

#include <stddef.h>
#include <stdint.h>

#include <socks6/client.h>
#include <socks6/server.h>

#include "heap.h"

/* Options as they stand in messages. */
#define OPT_METHODS "0002 0008 0000 02 00"   /* password */
#define OPT_METHODS_5 "0002 0008 0005 02 00" /* and 5 bytes of initial data */
#define OPT_ALICE "0004 0014 02 01 05 616c696365 06 736563726574 00"
#define OPT_SESSION_REQUEST "0005 0004"
#define OPT_SESSION_ID "0006 000c 4142434445464748" /* "ABCDEFGH" */
#define OPT_SESSION_OK "0008 0004"
#define OPT_SESSION_INVALID "0009 0004"
#define OPT_TEARDOWN "000a 0004"
#define OPT_WINDOW_REQUEST "000b 0008 00000010"
#define OPT_WINDOW "000c 000c 000003e8 00000010" /* 1000, 16 tokens */
#define OPT_TOKEN "000d 0008 000003e8"           /* 1000 */
#define OPT_ACCEPTED "000e 0004"
#define OPT_REJECTED "000f 0004"
#define OPT_STATUS_GOOD "0004 0008 02 01 00 00"
#define OPT_STATUS_BAD "0004 0008 02 01 01 00"
#define OPT_SELECT_2 "0003 0008 02 000000"

/* RFC 1929, and the Authentication Replies without options. */
#define USERPASS_ALICE "01 05 616c696365 06 736563726574"
#define AUTH_SUCCESS "06 00 0000"
#define AUTH_FAILURE "06 01 0000"
/* Operation Reply to 0.0.0.0:0. */
#define REPLY_ANY(code) "06 " code " 0000 0000 00 01 00000000"

/* Hexadecimal text, spaces ignored; returns the length. */
size_t rig_bytes(const char *hex, uint8_t *out, size_t size);

struct server_rig {
    struct heap heap;
    struct socks6_server_config config;
    struct socks6_server *server;
    struct socks6_server_event event; /* the last one */
    uint64_t now_ms;
};

/* Settings by default, memory from `heap`; change `config`, then server_rig_start(). */
void server_rig_init(struct server_rig *rig);
void server_rig_start(struct server_rig *rig);
/* Frees the machine; fails if anything is still held or a secret was left in memory. */
void server_rig_done(struct server_rig *rig);
/* All of it must be taken. */
void server_rig_send(struct server_rig *rig, const char *hex);
/* How much of it was taken. */
size_t server_rig_offer(struct server_rig *rig, const char *hex);
/* A request for 192.0.2.1:80 with these options. */
void server_rig_request(struct server_rig *rig, enum socks6_command command, const char *options);
void server_rig_expect(struct server_rig *rig, enum socks6_server_event_type type);
/* The whole output, which is then taken. */
void server_rig_output(struct server_rig *rig, const char *hex);
/* `head` is an Authentication Reply's type; the options' length is filled in. */
void server_rig_auth_reply(struct server_rig *rig, unsigned type, const char *options);
/* CLOSE is said with this reason, and nothing after it: no event, no byte taken, no answer. */
void server_rig_closed(struct server_rig *rig, int reason);

struct client_rig {
    struct heap heap;
    struct socks6_client_config config;
    struct socks6_client *client;
    struct socks6_client_event event;
    uint64_t now_ms;
};

/* CONNECT to 192.0.2.1:80. */
void client_rig_init(struct client_rig *rig);
void client_rig_start(struct client_rig *rig);
void client_rig_done(struct client_rig *rig);
/* Credentials alice:secret. */
void client_rig_alice(struct client_rig *rig);
void client_rig_send(struct client_rig *rig, const char *hex);
size_t client_rig_offer(struct client_rig *rig, const char *hex);
void client_rig_auth_reply(struct client_rig *rig, unsigned type, const char *options);
void client_rig_expect(struct client_rig *rig, enum socks6_client_event_type type);
void client_rig_output(struct client_rig *rig, const char *hex);
void client_rig_closed(struct client_rig *rig, enum socks6_client_close_reason reason);

#endif
