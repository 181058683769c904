/*
 * Where will a program that posix_spawn(3) starts have its working directory? The actions are libc's secret; so our hooks note what
 * posix_spawn_file_actions_addchdir_np(3) and its like are told, in the part of the struct that nobody uses.
 */
#ifndef PRELOAD_SPAWN_FOLDER_H
#define PRELOAD_SPAWN_FOLDER_H

#include <spawn.h>

/* AT_FDCWD if it does not change; a descriptor, for spawn_folder_close(); or one of these, which are no descriptor either. */
#define SPAWN_FOLDER_UNKNOWN (-1) /* one of the actions may open it */
#define SPAWN_FOLDER_MISSING (-2) /* the child will not get there, nor start anything */
int spawn_folder_open(const posix_spawn_file_actions_t *actions);
void spawn_folder_close(int folder);

#endif
