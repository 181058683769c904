/* Equality of decoded messages by what they mean: slices by their bytes. For unit tests and fuzz targets. */
#ifndef TESTS_COMPARE_H
#define TESTS_COMPARE_H

#include <stdbool.h>

#include <socks6/udp.h>

#include "wire/message.h"
#include "wire/option.h"

bool slices_equal(struct socks6_slice a, struct socks6_slice b);
/* Exact, names' case included. */
bool addrs_equal(const struct socks6_addr *a, const struct socks6_addr *b);
bool options_equal(const struct s6_options *a, const struct s6_options *b);
bool requests_equal(const struct s6_request *a, const struct s6_request *b);
bool auth_replies_equal(const struct s6_auth_reply *a, const struct s6_auth_reply *b);
bool replies_equal(const struct s6_reply *a, const struct s6_reply *b);
bool udp_messages_equal(const struct socks6_udp_message *a, const struct socks6_udp_message *b);

#endif
