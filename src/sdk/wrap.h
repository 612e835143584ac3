/* What wrap.c and the entries in wrap_entry.S share. */
#ifndef SDK_WRAP_H
#define SDK_WRAP_H

#define WRAP_ENTRIES 1024   /* PUG_WRAP_METHODS_MAX */
#define WRAP_ENTRY_BYTES 16 /* of code each */
#define WRAP_METHOD_SHIFT 6 /* struct wrap_method is 64 bytes */

/* Which vector registers may hold arguments: pug__wrap_vectors. */
#define WRAP_VECTORS_XMM 0
#define WRAP_VECTORS_ASK 1 /* XGETBV says which are in use */
#define WRAP_VECTORS_YMM 2 /* there may be wider ones, and no way to ask */

#ifndef __ASSEMBLER__
#include "pugmark/wrap.h"

/* Entry i of the code runs method i. Written once, before the entry is handed out. */
struct wrap_method {
    void *original;
    uint64_t stack_bytes; /* a multiple of 16 */
    struct pug__site site;
};

extern struct wrap_method pug__wrap_methods[WRAP_ENTRIES] __attribute__((visibility("hidden")));
extern uint32_t pug__wrap_vectors __attribute__((visibility("hidden")));
extern const char pug__wrap_entries[] __attribute__((visibility("hidden")));

struct pug__slot *pug__wrap_begin(struct wrap_method *m) __attribute__((visibility("hidden")));
void pug__wrap_end(struct pug__slot *slot) __attribute__((visibility("hidden")));
#endif

#endif
