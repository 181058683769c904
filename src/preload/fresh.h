/*
 * Sockets on which the program has set no option: most are connected so, and then there is little to carry over. Only what this process
 * has made itself counts, and only while it has no duplicate. Safe in signal handlers.
 */
#ifndef PRELOAD_FRESH_H
#define PRELOAD_FRESH_H

#include <stdbool.h>

void fresh_note(int fd);  /* socket(2) has made it */
void fresh_touch(int fd); /* an option is about to be set */
bool fresh_is(int fd);

#endif
