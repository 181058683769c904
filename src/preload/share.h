/*
 * The memory that the helper shares with us (run/share.h): asked for once in a process, and inherited by its children until they start
 * another program.
 */
#ifndef PRELOAD_SHARE_H
#define PRELOAD_SHARE_H

#include "run/share.h"

/* NULL if there is none for us. Safe in signal handlers. */
struct run_share *share_get(void);

#endif
