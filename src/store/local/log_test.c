#include "base/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/local/file.h"
#include "store/local/log.h"

struct place {
    char path[64];
    int dir;
};

static struct place place_new(void)
{
    struct place p;
    snprintf(p.path, sizeof p.path, "%s/pugmark-log-XXXXXX", P_tmpdir);
    assert_non_null(mkdtemp(p.path));
    p.dir = open(p.path, O_RDONLY | O_DIRECTORY);
    assert_true(p.dir >= 0);
    return p;
}

static void place_done(struct place *p)
{
    DIR *dir = opendir(p->path);
    for (struct dirent *e; (e = readdir(dir));)
        unlinkat(p->dir, e->d_name, 0);
    closedir(dir);
    close(p->dir);
    rmdir(p->path);
}

static struct str slurp(const struct place *p, const char *name)
{
    int fd;
    uint64_t size;
    assert_int_equal(file_open(p->dir, name, O_RDONLY, &fd), 0);
    assert_int_equal(file_size(fd, &size), 0);
    char *bytes = malloc(size + 1);
    assert_int_equal(file_read_at(fd, bytes, size, 0), 0);
    close(fd);
    return (struct str){bytes, size};
}

static void spill(const struct place *p, const char *name, const char *bytes, size_t n)
{
    int fd;
    assert_int_equal(file_open(p->dir, name, O_WRONLY | O_CREAT | O_TRUNC, &fd), 0);
    assert_int_equal(file_write(fd, bytes, n), 0);
    close(fd);
}

static const char first_file[] = "log-0000000000000001.log";

/* Bodies of 0, 1, 2, ... bytes. */
static struct log_body body_of(uint64_t sequence)
{
    static char bytes[100];
    memset(bytes, 'x', sizeof bytes);
    return (struct log_body){BODY_OTLP_PROTOBUF, {bytes, (size_t)(sequence - 1) * 3}, 7};
}

static void append(struct log *log, uint64_t sequence)
{
    uint64_t last;
    struct log_body body = body_of(sequence);
    assert_int_equal(log_append(log, &body, 1, &last), 0);
    assert_int_equal(last, sequence);
}

struct seen {
    uint64_t sequences[32];
    size_t n;
};

static int see(void *arg, uint64_t sequence, const struct log_body *body)
{
    struct seen *seen = arg;
    struct log_body expected = body_of(sequence);
    assert_str_eq(body->body, expected.body);
    assert_int_equal(body->format, BODY_OTLP_PROTOBUF);
    assert_int_equal(body->n_spans, 7);
    assert_true(seen->n < 32);
    seen->sequences[seen->n++] = sequence;
    return 0;
}

static int recover(struct log *log, const struct place *p, uint64_t sealed, struct seen *seen)
{
    struct error_detail detail;
    *seen = (struct seen){0};
    log_init(log, p->dir, false);
    return log_recover(log, sealed, see, seen, &detail);
}

static void records_come_back_in_order(void **state)
{
    struct place p = place_new();
    struct log log;
    struct seen seen;
    assert_int_equal(recover(&log, &p, 0, &seen), 0);
    assert_int_equal(seen.n, 0);
    for (uint64_t s = 1; s <= 9; s++) {
        append(&log, s);
        if (s % 3 == 0)
            log_rotate(&log);
    }
    log_done(&log);
    assert_int_equal(recover(&log, &p, 0, &seen), 0);
    assert_int_equal(seen.n, 9);
    for (uint64_t s = 1; s <= 9; s++)
        assert_int_equal(seen.sequences[s - 1], s);
    append(&log, 10);
    log_done(&log);
    assert_int_equal(recover(&log, &p, 4, &seen), 0);
    assert_int_equal(seen.n, 6);
    assert_int_equal(seen.sequences[0], 5);
    log_trim(&log, 6);
    assert_int_equal(log.oldest->first_sequence, 7);
    log_trim(&log, 10);
    assert_null(log.oldest);
    append(&log, 11);
    log_trim(&log, 11); /* the file being written stays */
    assert_non_null(log.oldest);
    log_done(&log);
    place_done(&p);
}

static void a_tail_torn_at_any_byte_is_cut(void **state)
{
    struct place p = place_new();
    struct log log;
    struct seen seen;
    log_init(&log, p.dir, false);
    for (uint64_t s = 1; s <= 6; s++)
        append(&log, s);
    log_done(&log);
    struct str whole = slurp(&p, first_file);
    log_set_level(LOG_LEVEL_OFF);
    for (size_t cut = 0; cut <= whole.len; cut++) {
        spill(&p, first_file, whole.ptr, cut);
        assert_int_equal(recover(&log, &p, 0, &seen), 0);
        /* The padding behind a record may be missing. */
        size_t expected = 0, end = LOG_HEADER_SIZE;
        for (uint64_t s = 1; s <= 6; s++) {
            size_t body_end = end + LOG_RECORD_SIZE + body_of(s).body.len;
            if (body_end > cut)
                break;
            expected = s;
            end = (body_end + 7) & ~(size_t)7;
        }
        assert_int_equal(seen.n, expected);
        assert_int_equal(log.damaged, 0);
        assert_int_equal(log.next_sequence, cut > LOG_HEADER_SIZE && !expected ? 2 : expected + 1);
        /* What is written next comes back as well, and nothing twice. */
        uint64_t next = log.next_sequence;
        append(&log, next);
        log_done(&log);
        assert_int_equal(recover(&log, &p, 0, &seen), 0);
        assert_int_equal(seen.n, expected + 1);
        assert_int_equal(seen.sequences[expected], next);
        while (log.oldest)
            log_trim(&log, UINT64_MAX);
        log_done(&log);
    }
    log_set_level(LOG_LEVEL_INFO);
    free((char *)(uintptr_t)whole.ptr);
    place_done(&p);
}

static void damage_loses_only_the_record_it_hits(void **state)
{
    struct place p = place_new();
    struct log log;
    struct seen seen;
    log_init(&log, p.dir, false);
    for (uint64_t s = 1; s <= 6; s++)
        append(&log, s);
    log_done(&log);
    struct str whole = slurp(&p, first_file);
    char *bytes = (char *)(uintptr_t)whole.ptr;
    log_set_level(LOG_LEVEL_OFF);
    size_t at = LOG_HEADER_SIZE;
    for (uint64_t hit = 1; hit <= 6; hit++) { /* the last too: it is no torn tail */
        size_t length = LOG_RECORD_SIZE + body_of(hit).body.len;
        for (size_t i = at; i < at + length; i++) {
            bytes[i] ^= 0x10;
            spill(&p, first_file, bytes, whole.len);
            assert_int_equal(recover(&log, &p, 0, &seen), 0);
            assert_int_equal(seen.n, 5);
            assert_int_equal(log.damaged, 1);
            for (size_t k = 0; k < 5; k++)
                assert_int_equal(seen.sequences[k], k + 1 < hit ? k + 1 : k + 2);
            log_done(&log);
            bytes[i] ^= 0x10;
        }
        at = (at + length + 7) & ~(size_t)7;
    }
    log_set_level(LOG_LEVEL_INFO);
    free(bytes);
    place_done(&p);
}

static void a_damaged_or_newer_header_is_refused_and_left_alone(void **state)
{
    struct place p = place_new();
    struct log log;
    struct seen seen;
    log_init(&log, p.dir, false);
    append(&log, 1);
    log_done(&log);
    struct str whole = slurp(&p, first_file);
    char *bytes = (char *)(uintptr_t)whole.ptr;
    for (size_t i = 0; i < LOG_HEADER_SIZE; i++) {
        bytes[i] ^= 1;
        spill(&p, first_file, bytes, whole.len);
        assert_int_equal(recover(&log, &p, 0, &seen), ERR_CORRUPT);
        log_done(&log);
        struct str after = slurp(&p, first_file);
        assert_str_eq(after, whole);
        free((char *)(uintptr_t)after.ptr);
        bytes[i] ^= 1;
    }
    for (int field = 8; field <= 12; field += 4) { /* version, required features */
        bytes[field]++;                            /* one more than is known */
        uint64_t checksum = hash_bytes(bytes, 56);
        memcpy(bytes + 56, &checksum, 8);
        spill(&p, first_file, bytes, whole.len);
        assert_int_equal(recover(&log, &p, 0, &seen), ERR_UNSUPPORTED);
        log_done(&log);
        bytes[field]--;
    }
    free(bytes);
    place_done(&p);
}

/* What a program of the last version wrote: one record, whose head has no checksum. */
static struct str old_file(size_t body_bytes, char fill)
{
    size_t n = LOG_HEADER_SIZE + 32 + body_bytes;
    char *b = calloc(1, n);
    uint64_t salt = 77, sequence = 1, sum;
    uint32_t version = 1, length = (uint32_t)body_bytes, spans = 7;
    uint16_t format = BODY_OTLP_PROTOBUF;
    memcpy(b, "PUGLOG\r\n", 8);
    memcpy(b + 8, &version, 4);
    memcpy(b + 24, &sequence, 8);
    memcpy(b + 32, &salt, 8);
    sum = hash_bytes(b, 56);
    memcpy(b + 56, &sum, 8);
    char *r = b + LOG_HEADER_SIZE;
    memcpy(r, "PREC", 4);
    memcpy(r + 4, &length, 4);
    memcpy(r + 16, &sequence, 8);
    memcpy(r + 24, &format, 2);
    memcpy(r + 28, &spans, 4);
    memset(r + 32, fill, body_bytes);
    sum = hash_bytes_seed(r + 32, body_bytes, hash_bytes_seed(r + 16, 16, salt));
    memcpy(r + 8, &sum, 8);
    return (struct str){b, n};
}

static void a_file_of_the_last_version_is_read_and_followed_by_a_new_one(void **state)
{
    struct place p = place_new();
    struct log log;
    struct str old = old_file(0, 'x'); /* what body_of(1) is */
    struct seen seen;
    spill(&p, first_file, old.ptr, old.len);
    assert_int_equal(recover(&log, &p, 0, &seen), 0);
    assert_int_equal(seen.n, 1);
    append(&log, 2);
    log_done(&log);
    assert_int_equal(recover(&log, &p, 0, &seen), 0);
    assert_int_equal(seen.n, 2);
    assert_int_equal(log.damaged, 0);
    log_done(&log);
    free((char *)(uintptr_t)old.ptr);
    place_done(&p);
}

static void count_damage(void *arg, uint64_t at, uint64_t bytes)
{
    uint64_t *n = arg;
    n[2] += bytes;
}

static int take_first(void *arg, uint64_t sequence, const struct log_body *body)
{
    uint64_t *sequences = arg;
    sequences[0]++;
    sequences[1] = sequence;
    return 0;
}

static void a_record_inside_a_body_is_not_believed(void **state)
{
    struct place p = place_new();
    struct log log;
    uint64_t last;
    log_init(&log, p.dir, false);
    append(&log, 1);
    log_done(&log);
    /* The whole of a true record, as a stranger may have seen it in another log, in a body. */
    struct str whole = slurp(&p, first_file);
    struct log_body evil = {BODY_OTLP_PROTOBUF, str_skip(whole, LOG_HEADER_SIZE), 1};
    assert_int_equal(unlinkat(p.dir, first_file, 0), 0);
    log_init(&log, p.dir, false);
    assert_int_equal(log_append(&log, &evil, 1, &last), 0);
    append(&log, 2);
    log_done(&log);
    struct str other = slurp(&p, first_file);
    char *bytes = (char *)(uintptr_t)other.ptr;
    bytes[LOG_HEADER_SIZE + 8] ^= 1; /* so that the reader searches inside the body */
    uint64_t seen[2] = {0}, good;
    assert_int_equal(log_read(other, take_first, NULL, seen, &good), 0);
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 2);
    free(bytes);
    free((char *)(uintptr_t)whole.ptr);
    place_done(&p);
}

/* A body of nothing but heads of records, each claiming all that follows: with the body's own head
 * damaged the search meets a million of them, and hashing behind each would take hours. */
static void hostile_bodies_do_not_slow_recovery(void **state)
{
    struct place p = place_new();
    struct log log;
    uint64_t last;
    size_t n = 32 << 20;
    char *bytes = calloc(1, n);
    for (size_t at = 0; at + LOG_RECORD_SIZE <= n; at += 32) {
        uint32_t length = (uint32_t)(n - at - LOG_RECORD_SIZE);
        memcpy(bytes + at, "PREC", 4);
        memcpy(bytes + at + 4, &length, 4);
    }
    struct log_body evil = {BODY_OTLP_PROTOBUF, {bytes, n}, 1};
    log_init(&log, p.dir, false);
    assert_int_equal(log_append(&log, &evil, 1, &last), 0);
    append(&log, 2);
    log_done(&log);
    struct str file = slurp(&p, first_file);
    char *all = (char *)(uintptr_t)file.ptr;
    all[LOG_HEADER_SIZE + 8] ^= 1;
    uint64_t seen[3] = {0}, good;
    assert_int_equal(log_read(file, take_first, count_damage, seen, &good), 0);
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 2);
    assert_int_equal(seen[2], LOG_RECORD_SIZE + n);
    assert_int_equal(good, file.len);
    free(all);
    free(bytes);
    place_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_in_order),
        cmocka_unit_test(a_tail_torn_at_any_byte_is_cut),
        cmocka_unit_test(damage_loses_only_the_record_it_hits),
        cmocka_unit_test(a_damaged_or_newer_header_is_refused_and_left_alone),
        cmocka_unit_test(a_record_inside_a_body_is_not_believed),
        cmocka_unit_test(a_file_of_the_last_version_is_read_and_followed_by_a_new_one),
        cmocka_unit_test(hostile_bodies_do_not_slow_recovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
