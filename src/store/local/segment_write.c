#include "store/local/segment.h"

int segment_write(const struct memtable *mt, int dir, const char *name, bool sync,
                  struct segment_info *ret_info)
{
    (void)mt, (void)dir, (void)name, (void)sync, (void)ret_info;
    return ERR_UNSUPPORTED;
}
