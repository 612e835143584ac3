/* Groups of rows: their directory, and their columns, each decoded when it is first needed and kept with
 * the group until another takes its place. */
#include "store/local/segment_read.h"

#include <string.h>

/* ---- the directory ---- */

static struct block_ref directory_ref(struct codec_reader *r, uint64_t *offset)
{
    struct block_ref ref = {.offset = *offset, .length = codec_varint(r)};
    ref.checksum = segment_get_u32(r);
    *offset += ref.length;
    return ref;
}

int segment_group_read(struct segment *seg, const struct segment_group *g, struct arena *arena,
                       struct group_read *ret)
{
    struct codec_reader r;
    int err = segment_columns(seg);
    if (!err)
        err = segment_block(seg, g->directory, arena, &r);
    if (err)
        return err;
    struct group_read group = {.group = g};
    uint64_t offset = g->offset;
    for (int i = 0; i < FIXED_COLUMNS; i++)
        group.fixed[i] = directory_ref(&r, &offset);
    group.n_shapes = codec_varint(&r);
    group.n_shape_cells = codec_varint(&r);
    group.n_columns = codec_u32(&r);
    group.by_column = seg->lists_by_column && group.n_columns && !group.n_shapes;
    if (group.n_shapes > g->n || group.n_columns > seg->n_columns)
        r.err = ERR_CORRUPT;
    group.columns = r.err ? NULL : arena_array(arena, group.n_columns, sizeof *group.columns);
    if (!r.err && !group.columns)
        r.err = ERR_NOMEM;
    uint64_t column = 0;
    for (uint32_t i = 0; !r.err && i < group.n_columns; i++) {
        struct group_column_read *gc = &group.columns[i];
        column += codec_varint(&r) + (i != 0);
        if (column >= seg->n_columns) {
            r.err = ERR_CORRUPT;
            break;
        }
        const struct segment_column *c = &seg->columns[column];
        *gc = (struct group_column_read){.column = (uint32_t)column, .n = codec_varint(&r)};
        gc->values = directory_ref(&r, &offset);
        if (c->how == HOW_PLAIN && c->type == VALUE_STRING)
            gc->filter = directory_ref(&r, &offset);
        if (c->type == VALUE_INT) {
            gc->low = codec_zigzag(&r);
            gc->high = codec_zigzag(&r);
        }
        if (gc->n == 0 || gc->n > c->n || (group.by_column && gc->n > g->n))
            r.err = ERR_CORRUPT;
    }
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, g->directory.offset, "the directory of a group");
    *ret = group;
    return 0;
}

int segment_group_keep(struct segment *seg, const struct segment_group *g, struct group_kept **ret)
{
    struct group_kept *k = NULL;
    for (int i = 0; i < SEGMENT_KEPT_GROUPS; i++) {
        struct group_kept *kept = &seg->kept_groups[i];
        if (kept->g.group == g) {
            kept->used = ++seg->clock;
            *ret = kept;
            return 0;
        }
        if (!kept->pins && (!k || kept->used < k->used))
            k = kept;
    }
    struct arena arena = k->arena;
    arena_reset(&arena);
    *k = (struct group_kept){.arena = arena, .used = ++seg->clock};
    struct group_read read;
    int err = segment_group_read(seg, g, &k->arena, &read);
    if (err)
        return err;
    k->place_of = arena_zalloc(&k->arena, ((size_t)seg->n_columns + 1) * sizeof *k->place_of);
    k->values = arena_zalloc(&k->arena, ((size_t)read.n_columns + 1) * sizeof *k->values);
    if (!k->place_of || !k->values)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < read.n_columns; i++)
        k->place_of[read.columns[i].column] = i + 1;
    k->g = read;
    *ret = k;
    return 0;
}

/* ---- fixed columns ---- */

/* From this part of a group's rows on, all of a column is unpacked. */
enum { MANY_ROWS = 16 };

/* No row has an operation that there is not. */
static bool operations_right(const struct stream_view *v, uint32_t n, uint32_t n_operations)
{
    uint8_t most = 0;
    bool right = true;
    if (v->how == VIEW_BYTES) {
        for (uint32_t i = 0; i < n; i++)
            most = v->bytes[i] > most ? v->bytes[i] : most;
        for (unsigned i = 0; i <= most; i++)
            right &= v->values[i] < n_operations;
        return right;
    }
    for (uint32_t i = 0; i < n; i++)
        right &= stream_view_at(v, i) < n_operations;
    return right;
}

int group_view(struct segment *seg, struct group_kept *k, enum fixed_column column,
               const struct stream_view **ret)
{
    uint32_t n = k->g.group->n;
    if (!k->views[column]) {
        struct codec_reader r;
        struct stream_view *view = arena_alloc(&k->arena, sizeof *view);
        int err = column == FIXED_OPERATION ? segment_operations_read(seg) : 0;
        if (!err)
            err = segment_block(seg, k->g.fixed[column], &k->arena, &r);
        if (err || !view)
            return err ? err : ERR_NOMEM;
        (void)!stream_view(&r, n, view);
        err = codec_finish(&r);
        if (!err && column == FIXED_OPERATION && !operations_right(view, n, seg->n_operations))
            err = ERR_CORRUPT;
        if (err)
            return segment_fail(seg, err, k->g.fixed[column].offset, "a column of a group");
        k->views[column] = view;
    }
    *ret = k->views[column];
    return 0;
}

int group_some(struct segment *seg, struct group_kept *k, enum fixed_column column, uint32_t n,
               struct stream_view *ret)
{
    const struct stream_view *view;
    uint64_t *numbers;
    if (n > k->g.group->n / MANY_ROWS || k->fixed[column]) {
        int err = group_fixed(seg, k, column, &numbers);
        if (!err)
            *ret = (struct stream_view){.how = VIEW_WIDE, .wide = numbers};
        return err;
    }
    int err = group_view(seg, k, column, &view);
    if (!err)
        *ret = *view;
    return err;
}

int group_fixed(struct segment *seg, struct group_kept *k, enum fixed_column column, uint64_t **ret)
{
    if (!k->fixed[column]) {
        const struct stream_view *view;
        int err = group_view(seg, k, column, &view);
        uint64_t *room = err ? NULL : arena_array(&k->arena, k->g.group->n, sizeof *room);
        if (err || !room)
            return err ? err : ERR_NOMEM;
        k->fixed[column] = stream_view_all(view, k->g.group->n, room);
    }
    *ret = k->fixed[column];
    return 0;
}

static uint64_t foreign_count(const struct stream_view *parents, uint32_t n)
{
    uint64_t count = 0;
    if (parents->how == VIEW_BYTES) {
        bool any = false;
        for (unsigned i = 0; i < parents->n_values; i++)
            any |= parents->values[i] == SEGMENT_FOREIGN_PARENT;
        if (!any)
            return 0;
    }
    for (uint32_t i = 0; i < n; i++)
        count += stream_view_at(parents, i) == SEGMENT_FOREIGN_PARENT;
    return count;
}

int group_ids(struct segment *seg, struct group_kept *k)
{
    struct codec_reader ids, foreign;
    const struct stream_view *parents;
    if (k->ids)
        return 0;
    int err = group_view(seg, k, FIXED_PARENT, &parents);
    if (!err)
        err = segment_ids(seg, k->g.fixed[FIXED_SPAN_ID], k->g.group->n, &k->arena, &ids);
    if (!err)
        err = segment_block(seg, k->g.fixed[FIXED_FOREIGN_PARENTS], &k->arena, &foreign);
    if (err)
        return err;
    uint64_t n_foreign = foreign_count(parents, k->g.group->n);
    if ((size_t)(ids.end - ids.at) != (size_t)k->g.group->n * SPAN_ID_SIZE ||
        (size_t)(foreign.end - foreign.at) != n_foreign * SPAN_ID_SIZE)
        return segment_fail(seg, ERR_CORRUPT, k->g.fixed[FIXED_SPAN_ID].offset,
                            "the ids of a group");
    k->foreign = foreign.at;
    k->n_foreign = n_foreign;
    k->ids = ids.at;
    return 0;
}

static int list_column(struct segment *seg, struct group_kept *k, enum fixed_column column,
                       struct str **ret)
{
    struct codec_reader r;
    int err = segment_block(seg, k->g.fixed[column], &k->arena, &r);
    if (err)
        return err;
    struct str *items = stream_list(&r, k->g.group->n);
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, k->g.fixed[column].offset, "a column");
    *ret = items;
    return 0;
}

int group_rest(struct segment *seg, struct group_kept *k)
{
    struct codec_reader r;
    struct group_rest rest;
    size_t n = k->g.group->n;
    if (k->has_rest)
        return 0;
    int err = list_column(seg, k, FIXED_EVENTS, &rest.events);
    if (!err)
        err = list_column(seg, k, FIXED_LINKS, &rest.links);
    if (!err)
        err = segment_block(seg, k->g.fixed[FIXED_DROPPED], &k->arena, &r);
    if (err)
        return err;
    rest.dropped_attrs = stream_sized(&r, n);
    rest.dropped_events = stream_sized(&r, n);
    rest.dropped_links = stream_numbers(&r, n);
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, k->g.fixed[FIXED_DROPPED].offset, "a column");
    k->rest = rest;
    k->has_rest = true;
    return 0;
}

/* ---- attributes ---- */

/* Turns the steps from column to column into columns. */
static bool shapes_add_up(struct group_shapes *sh, uint64_t n_shapes, uint64_t n_cells,
                          uint32_t n_columns)
{
    uint64_t at = 0;
    uint32_t *cell = sh->columns;
    bool wrong = false;
    for (uint64_t i = 0; i < n_shapes; i++) {
        uint64_t length = sh->lengths[i];
        uint32_t column = UINT32_MAX; /* -1 */
        sh->first[i] = (uint32_t)at;
        if (length > n_cells - at)
            return false;
        at += length;
        for (uint64_t k = 0; k < length; k++, cell++) {
            uint32_t step = *cell;
            wrong |= step >= n_columns;
            column += step + 1;
            column -= column >= n_columns ? n_columns : 0;
            *cell = column;
        }
    }
    sh->first[n_shapes] = (uint32_t)at;
    return !wrong && at == n_cells;
}

static int shapes_read(struct segment *seg, const struct group_read *g, struct arena *arena,
                       struct group_shapes *ret)
{
    struct codec_reader r;
    struct group_shapes sh;
    int err = segment_numbers(seg, g->fixed[FIXED_SHAPE], g->group->n, arena, &sh.of_row);
    if (!err)
        err = segment_block(seg, g->fixed[FIXED_SHAPES], arena, &r);
    if (err)
        return err;
    sh.lengths = stream_sized(&r, g->n_shapes);
    sh.columns = stream_numbers32(&r, g->n_shape_cells);
    sh.first = r.err ? NULL : arena_array(arena, g->n_shapes + 1, sizeof *sh.first);
    if (!r.err && !sh.first)
        r.err = ERR_NOMEM;
    if (!r.err && !shapes_add_up(&sh, g->n_shapes, g->n_shape_cells, seg->n_columns))
        r.err = ERR_CORRUPT;
    sh.are_own = g->n_shapes == g->group->n;
    bool wrong = false;
    for (uint32_t i = 0; !r.err && i < g->group->n; i++) {
        wrong |= sh.of_row[i] >= g->n_shapes;
        sh.are_own &= sh.of_row[i] == i;
    }
    if (wrong)
        r.err = ERR_CORRUPT;
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, g->fixed[FIXED_SHAPES].offset, "the shapes of a group");
    *ret = sh;
    return 0;
}

/* The first of the ascending rows that is not below `row`. */
static uint32_t rows_find(const uint32_t *rows, uint64_t n, uint32_t row)
{
    uint32_t at = 0, high = (uint32_t)n;
    while (at < high) {
        uint32_t middle = at + (high - at) / 2;
        if (rows[middle] < row)
            at = middle + 1;
        else
            high = middle;
    }
    return at;
}

/* The lists of columns of some rows, put together from the rows of the columns. */
static int lists_make(struct segment *seg, struct group_kept *k, uint32_t first, uint32_t n,
                      struct arena *arena, struct group_shapes *ret)
{
    struct group_shapes sh = {
        .of_row = arena_array(arena, n, sizeof *sh.of_row),
        .lengths = arena_zalloc(arena, n * sizeof *sh.lengths),
        .first = arena_array(arena, (size_t)n + 1, sizeof *sh.first),
        .are_own = true,
    };
    uint32_t *from = arena_array(arena, k->g.n_columns, sizeof *from);
    if (!sh.of_row || !sh.lengths || !sh.first || !from)
        return ERR_NOMEM;
    for (uint32_t c = 0; c < k->g.n_columns; c++) {
        uint64_t values = k->g.columns[c].n;
        uint32_t *rows;
        int err = group_rows(seg, k, c, &rows);
        if (err)
            return err;
        from[c] = rows_find(rows, values, first);
        for (uint32_t i = from[c]; i < values && rows[i] < first + n; i++)
            sh.lengths[rows[i] - first]++;
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        sh.of_row[i] = i;
        sh.first[i] = at;
        at += (uint32_t)sh.lengths[i];
        sh.lengths[i] = 0;
    }
    sh.first[n] = at;
    sh.columns = arena_array(arena, (size_t)at + 1, sizeof *sh.columns);
    if (!sh.columns)
        return ERR_NOMEM;
    for (uint32_t c = 0; c < k->g.n_columns; c++) {
        const uint32_t *rows = k->values[c].rows;
        for (uint32_t i = from[c]; i < k->g.columns[c].n && rows[i] < first + n; i++) {
            uint32_t row = rows[i] - first;
            sh.columns[sh.first[row] + sh.lengths[row]++] = k->g.columns[c].column;
        }
    }
    *ret = sh;
    return 0;
}

int group_shapes(struct segment *seg, struct group_kept *k)
{
    int err = 0;
    if (!k->has_shapes)
        err = k->g.by_column ? lists_make(seg, k, 0, k->g.group->n, &k->arena, &k->shapes)
                             : shapes_read(seg, &k->g, &k->arena, &k->shapes);
    k->has_shapes |= !err;
    return err;
}

int group_shapes_between(struct segment *seg, struct group_kept *k, uint32_t first, uint32_t n,
                         struct group_shapes *ret)
{
    if (k->g.by_column && !k->has_shapes && n < k->g.group->n)
        return lists_make(seg, k, first, n, &seg->scratch, ret);
    int err = group_shapes(seg, k);
    if (err)
        return err;
    *ret = k->shapes;
    ret->of_row += first;
    return 0;
}

/* The block of a column: which rows have it, and the values. */
static int values_open(struct segment *seg, struct group_kept *k, uint32_t place)
{
    const struct group_column_read *gc = &k->g.columns[place];
    struct group_values *values = &k->values[place];
    if (values->is_open)
        return 0;
    int err = segment_block(seg, gc->values, &k->arena, &values->rest);
    values->is_open = !err;
    return err;
}

int group_rows(struct segment *seg, struct group_kept *k, uint32_t place, uint32_t **ret)
{
    const struct group_column_read *gc = &k->g.columns[place];
    struct group_values *values = &k->values[place];
    int err = values->rows ? 0 : values_open(seg, k, place);
    if (!err && !values->rows) {
        struct codec_reader r = values->rest;
        values->rows = stream_places(&r, gc->n, k->g.group->n);
        if (!values->rows)
            err = segment_fail(seg, r.err, gc->values.offset, "the rows of a column");
    }
    *ret = values->rows;
    return err;
}

int group_values(struct segment *seg, struct group_kept *k, uint32_t place)
{
    const struct group_column_read *gc = &k->g.columns[place];
    struct segment_column *c = &seg->columns[gc->column];
    struct group_values *values = &k->values[place];
    int err = 0;
    if (values->is_read)
        return 0;
    if (c->how == HOW_DICTIONARY)
        err = segment_dictionary(seg, c);
    if (!err)
        err = values_open(seg, k, place);
    if (err)
        return err;
    struct codec_reader r = values->rest;
    if (k->g.by_column)
        codec_bytes(&r, codec_varint(&r));
    uint64_t *numbers = NULL;
    struct str *texts = NULL;
    if (c->how == HOW_PLAIN)
        texts = stream_list(&r, gc->n);
    else if (c->how != HOW_NOTHING)
        numbers = stream_numbers(&r, gc->n);
    for (uint64_t i = 0; c->how == HOW_DICTIONARY && numbers && i < gc->n; i++)
        if (numbers[i] >= c->n_codes)
            r.err = ERR_CORRUPT;
    err = codec_finish(&r);
    if (err)
        return segment_fail(seg, err, gc->values.offset, "a column of attributes");
    values->numbers = numbers;
    values->texts = texts;
    values->is_read = true;
    return 0;
}

int group_number(struct segment *seg, struct group_kept *k, uint32_t place, uint64_t i,
                 uint64_t *ret)
{
    const struct group_column_read *gc = &k->g.columns[place];
    struct segment_column *c = &seg->columns[gc->column];
    struct group_values *values = &k->values[place];
    int err = values->view ? 0 : values_open(seg, k, place);
    if (!err && !values->view) {
        struct codec_reader r = values->rest;
        struct stream_view *view = arena_alloc(&k->arena, sizeof *view);
        if (!view)
            return ERR_NOMEM;
        if (k->g.by_column)
            codec_bytes(&r, codec_varint(&r));
        (void)!stream_view(&r, gc->n, view);
        err = codec_finish(&r);
        values->view = err ? NULL : view;
    }
    if (!err) {
        *ret = stream_view_at(values->view, i);
        if (c->how == HOW_DICTIONARY && *ret >= c->n_codes)
            err = ERR_CORRUPT;
    }
    return err == ERR_CORRUPT || err == ERR_TRUNCATED
               ? segment_fail(seg, err, gc->values.offset, "a column of attributes")
               : err;
}

/* What a row has more than the one before. */
static int rank_row(struct segment *seg, const struct group_kept *k, uint32_t row, uint32_t *at)
{
    const struct group_shapes *sh = &k->shapes;
    const uint32_t *columns = sh->columns + sh->first[sh->of_row[row]];
    for (uint64_t i = 0; i < sh->lengths[sh->of_row[row]]; i++) {
        uint32_t place = k->place_of[columns[i]];
        if (!place || at[place - 1]++ >= k->g.columns[place - 1].n)
            return segment_fail(seg, ERR_CORRUPT, k->g.fixed[FIXED_SHAPES].offset,
                                "the shapes of a group");
    }
    return 0;
}

/* Where the rows of columns are known. */
static int rank_by_column(struct segment *seg, struct group_kept *k, uint32_t row, uint32_t *at)
{
    for (uint32_t c = 0; c < k->g.n_columns; c++) {
        uint32_t *rows;
        int err = group_rows(seg, k, c, &rows);
        if (err)
            return err;
        at[c] = rows_find(rows, k->g.columns[c].n, row);
    }
    return 0;
}

enum { RANK_ROWS = 64, RANKS_MAX = 1 << 16 };

int group_rank(struct segment *seg, struct group_kept *k, uint32_t row, uint32_t *at)
{
    size_t each = k->g.n_columns;
    uint32_t n = k->g.group->n;
    if (k->g.by_column)
        return rank_by_column(seg, k, row, at);
    int err = group_shapes(seg, k);
    if (!err && !k->ranks) {
        uint32_t rows = RANK_ROWS;
        while (rows < n && (n / rows + 1) * each > RANKS_MAX)
            rows *= 2;
        uint32_t *ranks = arena_zalloc(&k->arena, (n / rows + 1) * each * sizeof *ranks);
        if (!ranks)
            return ERR_NOMEM;
        memset(at, 0, each * sizeof *at);
        for (uint32_t i = 0; !err && i < n; i++) {
            if (i % rows == 0)
                memcpy(ranks + i / rows * each, at, each * sizeof *at);
            err = rank_row(seg, k, i, at);
        }
        if (!err) {
            k->ranks = ranks;
            k->rank_rows = rows;
        }
    }
    if (err)
        return err;
    uint32_t from = row / k->rank_rows * k->rank_rows;
    memcpy(at, k->ranks + row / k->rank_rows * each, each * sizeof *at);
    for (; !err && from < row; from++)
        err = rank_row(seg, k, from, at);
    return err;
}

int segment_value(struct segment *seg, const struct segment_column *c, const uint64_t *numbers,
                  const struct str *texts, uint64_t i, struct arena *arena, struct value *ret)
{
    struct value v = {.type = c->type};
    switch (c->type) {
    case VALUE_BOOL:
        v.boolean = numbers[i] != 0;
        break;
    case VALUE_INT:
        v.integer = segment_unzigzag(numbers[i]);
        break;
    case VALUE_DOUBLE:
        memcpy(&v.real, &numbers[i], sizeof v.real);
        break;
    case VALUE_STRING:
        if (c->how == HOW_DICTIONARY) {
            int err = segment_string(seg, c->codes[numbers[i]], &v.string);
            if (err)
                return err;
        } else {
            v.string = texts[i];
        }
        break;
    case VALUE_BYTES:
        v.bytes = texts[i];
        break;
    case VALUE_ARRAY:
    case VALUE_MAP: {
        struct codec_reader r = codec_reader(texts[i], arena);
        codec_value(&r, &v);
        int err = codec_finish(&r);
        if (err || v.type != c->type)
            return segment_fail(seg, err ? err : ERR_CORRUPT, seg->columns_ref.offset, "a value");
        break;
    }
    default:
        break;
    }
    *ret = v;
    return 0;
}
