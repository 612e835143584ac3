/* Where allocations are counted (probe/alloc.c), if they are. */
#ifndef SDK_ALLOC_H
#define SDK_ALLOC_H

#include <stdbool.h>

#include "pugmark/alloc.h"

/* A thread's counters, as libpugmark-alloc keeps them, have so much more in each sum of bytes for each block: what glibc's word
 * in front of a block says, to be added as it is. */
#define ALLOC_BLOCK_EXTRA 8

/* Gives the counters to watch.h. False: nobody counts. */
bool alloc_find(void);

/* What the library allocates in the program's threads from here to the end of the scope is not
 * counted as the program's. */
#define ALLOC_OURS                                                                                 \
    __attribute__((cleanup(alloc_ours_end), unused)) struct alloc_ours alloc_ours =                \
        alloc_ours_begin()
struct alloc_ours {
    struct pug_alloc_counts before;
    bool known;
};
struct alloc_ours alloc_ours_begin(void);
void alloc_ours_end(struct alloc_ours *ours);

#endif
