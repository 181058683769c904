/*
 * Reads back what a server machine has written, by the rules of the draft's conversation: a Version Mismatch Reply
 * alone, or an Authentication Reply, after a selection the RFC 1929 status and Authentication Reply 2, and after a
 * success one or two Operation Replies. It may stop between messages.
 */
#ifndef TEST_CORE_REPLIES_H
#define TEST_CORE_REPLIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct replies {
    bool is_well_formed;
    bool is_mismatch;      /* the one byte */
    bool is_selected;      /* reply 1 selected a method */
    bool is_authenticated; /* a successful Authentication Reply is there */
    unsigned auth_count;
    unsigned operation_count;
    uint8_t code; /* of the last Operation Reply */
};

void replies_read(const uint8_t *bytes, size_t len, struct replies *out);

#endif
