/* Shared by option.c, option_encode.c and stack.c alone. */
#ifndef S6_WIRE_OPTION_INTERNAL_H
#define S6_WIRE_OPTION_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/option.h"

/* "SOCKS Options": kind and length. */
#define S6_OPTION_HEAD_LEN 4u

/* True if a message of this sort may carry this kind. */
bool s6_option_belongs(enum s6_option_kind kind, enum s6_where where);

/* True if the options are such as s6_options_add_stack() leaves them. */
bool s6_stack_is_canonical(const struct socks6_stack_option *stack, size_t count);

#endif
