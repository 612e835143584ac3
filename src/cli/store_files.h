/* pugmark store export|import: files of spans and a store that no server has open. */
#ifndef CLI_STORE_FILES_H
#define CLI_STORE_FILES_H

#include "store/store.h"

/* Exit statuses. `query` NULL: all spans. */
int store_files_export(struct store *store, const char *path, const char *query, uint64_t start_ns,
                       uint64_t end_ns, bool force);
int store_files_import(struct store *store, char *const *paths, int n);

#endif
