/*
 * Programs that confine themselves by seccomp(2), as browsers do with what renders pages: a system call that they do not make
 * themselves may be the end of them.
 */
#ifndef PRELOAD_CONFINED_H
#define PRELOAD_CONFINED_H

#include <stdbool.h>

/* This process has done so, or is about to: prctl(2) has told. Not known of one that was confined before exec(3). */
bool confined_is(void);

#endif
