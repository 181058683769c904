/*
 * One whole conversation in memory: the client machine against the server machine, with an application on each end and
 * a proxy that answers the server machine's questions from a script.
 *
 * What each side went through is written down as text, so that two conversations can be compared: the same settings
 * must give the same text however the bytes were cut on their way.
 */
#ifndef TEST_CORE_TALK_H
#define TEST_CORE_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/client.h>
#include <socks6/server.h>

/* How the proxy answers. All zero: nobody has to authenticate, no sessions, every request succeeds. */
struct talk_proxy {
    const char *username; /* NULL: authentication is not needed */
    const char *password;
    bool prefers_negotiation;    /* asks for the long form wherever it may */
    const char *known_session;   /* an ID of 8 characters, or NULL */
    const char *new_session;     /* what a Session Request gets; NULL: nothing */
    struct socks6_window window; /* of the known session; size 0 = none */
    uint32_t grant;              /* the largest window it gives; 0 = none. Base 1000 */
    enum socks6_reply_code code;
    enum socks6_reply_code second_code;      /* BIND */
    const struct socks6_stack_option *stack; /* answers, in the first reply */
    size_t stack_count;
};

/*
 * How bytes travel in one direction: all at once (all zero), first `cut` bytes and then the rest, or `chunk` at a
 * time.
 */
struct talk_cut {
    size_t cut;
    size_t chunk;
};

/* Room for everything that passes in one direction. */
#define TALK_MAX 4096u

struct talk_pipe {
    uint8_t bytes[TALK_MAX];
    size_t sent;      /* put in */
    size_t delivered; /* taken to the other end */
    size_t taken;     /* consumed there */
    struct talk_cut how;
};

struct talk_log {
    char text[1024];
    size_t len;
};

struct talk {
    struct socks6_client_config client_config;
    struct socks6_server_config server_config;
    struct talk_proxy proxy;
    bool strips_auth_data; /* takes Authentication Data out of the request on its way: the long form alone is left */
    struct talk_cut upstream;
    struct talk_cut downstream;
    const uint8_t *upload; /* the client's application data */
    size_t upload_len;
    const uint8_t *download; /* sent by the remote host after a successful (last) reply */
    size_t download_len;

    /* Results. */
    int client_new;   /* what socks6_client_new() said */
    int server_error; /* the first error of input() or of an answer */
    int client_error;
    struct talk_log client_log;
    struct talk_log server_log;
    uint8_t uploaded[TALK_MAX]; /* what the remote host got */
    size_t uploaded_len;
    uint8_t downloaded[TALK_MAX];
    size_t downloaded_len;
    bool is_server_closed;
    bool is_client_closed;

    /* Working state. */
    struct socks6_client *client;
    struct socks6_server *server;
    struct talk_pipe up;
    struct talk_pipe down;
    struct socks6_window session_window;
    size_t upload_sent;
    size_t download_sent;
    bool is_requested; /* REQUEST was said: what comes is application data */
    bool is_open;      /* the last reply is out, with success */
    enum socks6_command command;
    bool wants_second;
    bool is_client_open; /* the client may read application data */
};

/* Default settings: CONNECT to 192.0.2.1:80. Then change what you want. */
void talk_init(struct talk *talk);
/* Leads the conversation until nothing moves any more. Frees both machines. */
void talk_run(struct talk *talk);

/* True if what the server machine wrote is a sequence that the draft allows: see replies.h. */
bool talk_is_well_formed(const struct talk *talk);

#endif
