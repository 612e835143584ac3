#include "base/test.h"

#include "pugmark/wrap.h"

#include "base/err.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What functions of every shape do is tests/library/wrapped.c's; here are the tables. */

struct table {
    int (*one)(int);
    int (*two)(int);
    char odd[3];
    void *none;
};

static int one(int n)
{
    return n + 1;
}
static int two(int n)
{
    return n + 2;
}

static const struct pug_method methods[] = {
    PUG_METHOD(struct table, one),
    PUG_METHOD(struct table, two),
    PUG_METHOD(struct table, none),
};

static void skip_where_there_are_no_entries(void)
{
#if !(defined(__x86_64__) || defined(__aarch64__))
    struct table t = {one, two, "", NULL};
    assert_int_equal(PUG_WRAP_METHODS(&t, "t.", methods), PUG_ERR_UNSUPPORTED);
    print_message("pug_wrap_table is not for this processor\n");
    skip();
#endif
}

static void null_stays_null_and_wrapped_stays_wrapped(void **state)
{
    struct table t = {one, two, "", NULL}, once;
    skip_where_there_are_no_entries();
    assert_int_equal(PUG_WRAP_METHODS(&t, "t.", methods), 0);
    assert_ptr_not_equal(t.one, one);
    assert_null(t.none);
    assert_int_equal(t.one(1), 2);
    memcpy(&once, &t, sizeof t);
    assert_int_equal(PUG_WRAP_METHODS(&t, "t.", methods), 0);
    assert_int_equal(PUG_WRAP_METHODS(&t, "other.", methods), 0);
    assert_memory_equal(&t, &once, sizeof t);
    assert_int_equal(PUG_UNWRAP_METHODS(&t, methods), 0);
    assert_ptr_equal(t.one, one);
    assert_ptr_equal(t.two, two);
    assert_int_equal(PUG_UNWRAP_METHODS(&t, methods), 0);
    assert_ptr_equal(t.one, one);
    /* What the macros stand for; a size that is written out is the default's. */
    const struct pug_method same = {"one", offsetof(struct table, one), PUG_WRAP_STACK_DEFAULT};
    assert_int_equal(pug_wrap_table(&t, sizeof t, "t.", &same, 1), 0);
    assert_ptr_equal(t.one, once.one);
    assert_int_equal(pug_unwrap_table(&t, sizeof t, &same, 1), 0);
    assert_ptr_equal(t.one, one);
}

static void tables_of_the_same_functions_share_entries(void **state)
{
    skip_where_there_are_no_entries();
    struct table first = {one, two, "", NULL};
    assert_int_equal(PUG_WRAP_METHODS(&first, "t.", methods), 0);
    for (int i = 0; i < 3 * PUG_WRAP_METHODS_MAX; i++) {
        struct table t = {one, two, "", NULL};
        assert_int_equal(PUG_WRAP_METHODS(&t, "t.", methods), 0);
        assert_ptr_equal(t.one, first.one);
    }
}

static void what_cannot_be_is_refused_and_changes_nothing(void **state)
{
    char name[PUG_WRAP_NAME_MAX + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const struct pug_method bad[] = {
        {NULL, 0, 0},
        {"outside", sizeof(struct table), 0},
        {"at the edge", sizeof(struct table) - sizeof(void *) + 1, 0},
        {"far", SIZE_MAX, 0},
        {"crooked", offsetof(struct table, odd) + 1, 0},
        {"stack", 0, PUG_WRAP_STACK_MAX + 1},
        {name, 0, 0},
    };
    skip_where_there_are_no_entries();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct table t = {one, two, "", NULL};
        const struct pug_method both[] = {methods[0], bad[i]};
        assert_int_equal(PUG_WRAP_METHODS(&t, "t.", both), PUG_ERR_INVALID);
        assert_ptr_equal(t.one, one);
        assert_int_equal(PUG_UNWRAP_METHODS(&t, both), PUG_ERR_INVALID);
    }
    struct table t = {one, two, "", NULL};
    assert_int_equal(pug_wrap_table(NULL, sizeof t, "t.", methods, 1), PUG_ERR_INVALID);
    assert_int_equal(pug_wrap_table(&t, sizeof t, "t.", NULL, 1), PUG_ERR_INVALID);
    assert_int_equal(pug_wrap_table(&t, 4, "t.", methods, 1), PUG_ERR_INVALID);
    assert_int_equal(pug_wrap_table(&t, sizeof t, NULL, NULL, 0), 0);
    name[PUG_WRAP_NAME_MAX] = '\0';
    const struct pug_method longest[] = {{name, 0, 0}};
    assert_int_equal(PUG_WRAP_METHODS(&t, NULL, longest), 0);
    assert_int_equal(t.one(4), 5);
}

static struct table contended;
static pthread_barrier_t barrier;

static void *wraps_and_calls(void *arg)
{
    for (int round = 0; round < 200; round++) {
        pthread_barrier_wait(&barrier);
        if (PUG_WRAP_METHODS(&contended, "c.", methods) != 0)
            return (void *)(uintptr_t) "not wrapped";
        int (*f)(int) = __atomic_load_n(&contended.one, __ATOMIC_ACQUIRE);
        if (f(round) != round + 1)
            return (void *)(uintptr_t) "a wrong result";
        if (PUG_UNWRAP_METHODS(&contended, methods) != 0)
            return (void *)(uintptr_t) "not unwrapped";
    }
    return NULL;
}

static void threads_wrap_and_unwrap_the_same_table(void **state)
{
    pthread_t threads[4];
    void *problem;
    skip_where_there_are_no_entries();
    contended = (struct table){one, two, "", NULL};
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 4), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wraps_and_calls, NULL), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &problem), 0);
        if (problem)
            fail_msg("%s", (char *)problem);
    }
    pthread_barrier_destroy(&barrier);
    assert_ptr_equal(contended.one, one);
    assert_ptr_equal(contended.two, two);
}

/* The last: the pool is not given back. */
static void a_full_pool_is_an_error_and_changes_nothing(void **state)
{
    static char names[PUG_WRAP_METHODS_MAX + 1][12];
    int err = 0, wrapped = 0;
    skip_where_there_are_no_entries();
    for (int i = 0; i <= PUG_WRAP_METHODS_MAX && !err; i++) {
        struct table t = {one, two, "", NULL};
        snprintf(names[i], sizeof names[i], "m%d", i);
        const struct pug_method m[] = {{names[i], offsetof(struct table, one), 0}};
        err = PUG_WRAP_METHODS(&t, "full.", m);
        if (err)
            assert_ptr_equal(t.one, one);
        else
            assert_int_equal(t.one(wrapped), wrapped + 1);
        wrapped += !err;
    }
    assert_int_equal(err, PUG_ERR_FULL);
    assert_true(wrapped > PUG_WRAP_METHODS_MAX - 32);
    struct table t = {one, two, "", NULL};
    const struct pug_method some[] = {{"new", offsetof(struct table, two), 0}};
    assert_int_equal(PUG_WRAP_METHODS(&t, "full.", some), PUG_ERR_FULL);
    assert_ptr_equal(t.two, two);
    const struct pug_method known[] = {{"m0", offsetof(struct table, one), 0}};
    assert_int_equal(PUG_WRAP_METHODS(&t, "full.", known), 0);
    assert_int_equal(t.one(1), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_stays_null_and_wrapped_stays_wrapped),
        cmocka_unit_test(tables_of_the_same_functions_share_entries),
        cmocka_unit_test(what_cannot_be_is_refused_and_changes_nothing),
        cmocka_unit_test(threads_wrap_and_unwrap_the_same_table),
        cmocka_unit_test(a_full_pool_is_an_error_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
