/*
 * Option areas through decoder and encoder. Input: one byte that chooses the message they stand in, then the area.
 */
#include <string.h>

#include "compare.h"
#include "fuzz.h"
#include "wire/option.h"

/* The longest canonical form: every option once, the largest Session ID. */
#define ENCODED_MAX 70000u

static void check_stack(const struct s6_options *options)
{
    static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};

    for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
        struct s6_options fitted = *options;
        struct s6_options twice;

        s6_options_fit_draft(&fitted, drafts[i]);
        require(s6_options_check(&fitted, S6_IN_REQUEST) == SOCKS6_OK, "what fits a draft can be written");
        twice = fitted;
        s6_options_fit_draft(&twice, drafts[i]);
        require(options_equal(&fitted, &twice), "fitting once is enough");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum s6_where wheres[] = {S6_IN_REQUEST, S6_IN_AUTH_SUCCESS, S6_IN_AUTH_FAILURE, S6_IN_REPLY};
    static uint8_t bytes[2][ENCODED_MAX];
    struct s6_options options[2];
    struct s6_writer writers[2];
    enum s6_where where;

    if (size < 1 || size > 65536) {
        return 0;
    }
    where = wheres[data[0] % 4];
    if (s6_options_decode(data + 1, size - 1, where, &options[0]) != SOCKS6_OK) {
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        size_t len = s6_options_encoded_len(&options[i], where);

        require(s6_options_check(&options[i], where) == SOCKS6_OK, "what was decoded can be written");
        require(len <= ENCODED_MAX, "the canonical form has a bound");
        s6_writer_init(&writers[i], bytes[i], len);
        s6_options_encode(&writers[i], &options[i], where);
        require(!writers[i].failed && s6_writer_len(&writers[i]) == len, "the length is exact");
        if (i == 0) {
            require(s6_options_decode(bytes[0], len, where, &options[1]) == SOCKS6_OK, "what was written can be read");
            require(options_equal(&options[0], &options[1]), "decode(encode(x)) = x");
        }
    }
    require(s6_writer_len(&writers[0]) == s6_writer_len(&writers[1]) &&
                memcmp(bytes[0], bytes[1], s6_writer_len(&writers[0])) == 0,
            "the canonical form is stable");
    if (where == S6_IN_REQUEST) {
        check_stack(&options[0]);
    }
    return 0;
}
