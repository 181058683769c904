/*
 * One session's window of idempotence tokens (draft-11 "Idempotence Options"): which of [base, base + size) modulo 2^32
 * are spent. Plain data without a lock: whoever holds the session holds its window.
 */
#ifndef PROXYD_TOKEN_WINDOW_H
#define PROXYD_TOKEN_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

/* The largest window that is granted: half a kilobyte of bits. */
#define TOKEN_WINDOW_MAX 4096u

struct token_window {
    uint64_t *spent; /* a bit per token, used as a ring; NULL = no window */
    uint32_t base;   /* the lowest token that can be spent */
    uint32_t size;   /* 1 .. TOKEN_WINDOW_MAX; 0 = no window */
    uint32_t head;   /* the place of `base` in the ring */
    uint32_t reach;  /* offset behind the highest spent token, from base; 0 = none is */
};

/* A fresh window of `size` (1 .. TOKEN_WINDOW_MAX) from `base` on. 0 or -ENOMEM; `window` is untouched then. */
SOCKS6_MUST_CHECK int token_window_init(struct token_window *window, uint32_t base, uint32_t size);
/* Frees the bits; no window is left. */
void token_window_done(struct token_window *window);

/*
 * Spends `token`: true if it lies in the window and was unspent; it is spent from now on, and the window has slid: past
 * the lowest tokens that are spent, and, when the highest spent one is more than half a window ahead of the base, to half
 * a window behind it. Tokens left behind so can no longer be spent. False changes nothing.
 */
SOCKS6_MUST_CHECK bool token_window_spend(struct token_window *window, uint32_t token);

/* As it is advertised; size 0 = none. */
struct socks6_window token_window_view(const struct token_window *window);

#endif
