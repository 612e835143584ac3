/* In place of the built page when there is none (-Dpage=disabled, or no npm). */
#include "web/page_files.h"

const struct page_file page_files[1] = {{.path = ""}};
const size_t page_files_n = 0;
