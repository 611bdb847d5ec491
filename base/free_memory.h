/*
 * free_memory.h - how much memory this process may still take without being ended for it.
 *
 * Place    before large work on the CPU: Linux grants address space freely and ends a process
 *          later, so a clean ERR_NO_MEMORY needs a limit of our own.
 * Failure  cannot fail; SIZE_MAX when the system does not say.
 * Source   proc_meminfo(5) MemAvailable; Linux cgroup-v2 memory.max and memory.current.
 */
#ifndef BASE_FREE_MEMORY_H
#define BASE_FREE_MEMORY_H

#include <stddef.h>

size_t free_memory_bytes(void);

#endif
