/*
 * "Did you mean ...?" for words that people mistype.
 */
#ifndef CLI_SUGGEST_H
#define CLI_SUGGEST_H

#include <stddef.h>

/* How many letters to insert, remove, replace or swap with their neighbour to get from `a` to `b`; SIZE_MAX past 32 letters. */
size_t suggest_distance(const char *a, const char *b);

/* The nearest of `count` words, or NULL if none is near enough to be meant. */
const char *suggest_nearest(const char *word, const char *const *words, size_t count);

#endif
