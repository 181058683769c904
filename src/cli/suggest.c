#include "cli/suggest.h"

#include <stdint.h>
#include <string.h>

#define WORD_MAX 32

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The "optimal string alignment" distance, row by row; two rows back for swapped neighbours. */
size_t suggest_distance(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    size_t rows[3][WORD_MAX + 1];

    if (a_len > WORD_MAX || b_len > WORD_MAX) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replaced = above[j - 1] + (a[i - 1] != b[j - 1]);

            row[j] = min2(replaced, min2(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = min2(row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[a_len % 3][b_len];
}

const char *suggest_nearest(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;

    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(words[i]);
        size_t distance = suggest_distance(word, words[i]);

        if (*word != '\0' && strncmp(word, words[i], strlen(word)) == 0) {
            distance = 1; /* the beginning of the word: an abbreviation */
        }
        if (distance < best_distance && distance <= len / 2) {
            best = words[i];
            best_distance = distance;
        }
    }
    return best;
}
