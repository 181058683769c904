/*
 * What the program may see of the library: the functions that it replaces, and nothing else. All other symbols are hidden.
 */
#ifndef PRELOAD_EXPORT_H
#define PRELOAD_EXPORT_H

#define PRELOAD_EXPORT __attribute__((visibility("default")))

#endif
