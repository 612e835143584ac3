/* Functions of every shape, called directly and through a wrapped table: the same must come out, and
 * every call must have left its span. Prints "N calls, same" or the first difference. */
#include <pugmark/wrap.h>

#include <complex.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noinline, noclone))
#ifdef __clang__
#undef KEEP
#define KEEP __attribute__((noinline))
#endif

struct two_ints {
    long a, b;
};
struct mixed {
    double d;
    long i;
};
struct floats {
    float x, y, z;
};
struct four_doubles {
    double v[4];
};
struct big {
    long v[25];
};
struct huge {
    char v[4096];
};
typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v16 __attribute__((vector_size(64)));

static KEEP void nothing(void)
{
    __asm__ volatile("" ::: "memory");
}
static KEEP long integers(long a, int b, short c, signed char d, unsigned e, long f)
{
    return a * 2 + b * 3 + c * 5 + d * 7 + (long)e * 11 + f * 13;
}
static KEEP long twelve(long a, long b, long c, long d, long e, long f, long g, long h, long i,
                        long j, long k, char l)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11 * k +
           12 * l;
}
static KEEP double doubles(double a, float b, double c, double d, double e, double f, double g,
                           double h, double i, float j)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
static KEEP float single(float a, int b)
{
    return a * (float)b;
}
static KEEP long double longest(long double a, int b, long double c)
{
    return a * b + c;
}
static KEEP long double complex longest_complex(long double complex a, double complex b)
{
    return a * (long double complex)b;
}
static KEEP double complex complexes(float complex a, double complex b)
{
    return a * b;
}
static KEEP struct two_ints pair(struct two_ints p, long n)
{
    return (struct two_ints){p.b + n, p.a - n};
}
static KEEP struct mixed mix(int n, struct mixed m)
{
    return (struct mixed){m.d * n, m.i + n};
}
static KEEP struct floats scale(struct floats f, float by)
{
    return (struct floats){f.x * by, f.y * by, f.z * by};
}
static KEEP struct four_doubles four(struct four_doubles f, double by)
{
    for (int i = 0; i < 4; i++)
        f.v[i] *= by;
    return f;
}
static KEEP struct big reverse(struct big b, long add)
{
    struct big r;
    for (int i = 0; i < 25; i++)
        r.v[i] = b.v[24 - i] + add;
    return r;
}
static KEEP long huge(struct huge h, long add)
{
    for (size_t i = 0; i < sizeof h.v; i++)
        add = add * 31 + h.v[i];
    return add;
}
static KEEP __int128 wide(__int128 a, long b, __int128 c)
{
    return a * b + c;
}
static KEEP double sum_of(const char *kinds, ...)
{
    double sum = 0;
    va_list args;
    va_start(args, kinds);
    for (; *kinds; kinds++)
        sum = sum * 3 + (*kinds == 'd'   ? va_arg(args, double)
                         : *kinds == 'l' ? (double)va_arg(args, long)
                         : *kinds == 'L' ? (double)va_arg(args, long double)
                                         : (double)va_arg(args, int));
    va_end(args);
    return sum;
}
static KEEP v4 vector(v4 a, v4 b)
{
    return a * b + a;
}
static KEEP _Bool boolean(_Bool a, unsigned char b)
{
    return a ^ (b > 100);
}
static KEEP const char *text(const char *s, size_t n)
{
    return s + n;
}
struct table {
    void (*nothing)(void);
    long (*integers)(long, int, short, signed char, unsigned, long);
    long (*twelve)(long, long, long, long, long, long, long, long, long, long, long, char);
    double (*doubles)(double, float, double, double, double, double, double, double, double, float);
    float (*single)(float, int);
    long double (*longest)(long double, int, long double);
    long double complex (*longest_complex)(long double complex, double complex);
    double complex (*complexes)(float complex, double complex);
    struct two_ints (*pair)(struct two_ints, long);
    struct mixed (*mix)(int, struct mixed);
    struct floats (*scale)(struct floats, float);
    struct four_doubles (*four)(struct four_doubles, double);
    struct big (*reverse)(struct big, long);
    long (*huge)(struct huge, long);
    __int128 (*wide)(__int128, long, __int128);
    double (*sum_of)(const char *, ...);
    v4 (*vector)(v4, v4);
    _Bool (*boolean)(_Bool, unsigned char);
    const char *(*text)(const char *, size_t);
    unsigned (*recurse)(unsigned);
    int (*missing)(int);
    void (*jump)(jmp_buf);
    int (*nested)(int (*)(int), int);
};

static struct table through;
static unsigned long calls;

static KEEP unsigned recurse(unsigned n)
{
    return n == 0 ? 1 : n * 3 + through.recurse(n - 1);
}
static KEEP void jump(jmp_buf to)
{
    longjmp(to, 7);
}
static KEEP int nested(int (*f)(int), int n)
{
    return f(n) * 2;
}

static const struct table plain = {
    nothing, integers, twelve, doubles, single, longest, longest_complex, complexes, pair,
    mix,     scale,    four,   reverse, huge,   wide,    sum_of,          vector,    boolean,
    text,    recurse,  NULL,   jump,    nested};

static const struct pug_method methods[] = {
    PUG_METHOD(struct table, nothing),
    PUG_METHOD(struct table, integers),
    PUG_METHOD(struct table, twelve),
    PUG_METHOD(struct table, doubles),
    PUG_METHOD(struct table, single),
    PUG_METHOD(struct table, longest),
    PUG_METHOD(struct table, longest_complex),
    PUG_METHOD(struct table, complexes),
    PUG_METHOD(struct table, pair),
    PUG_METHOD(struct table, mix),
    PUG_METHOD(struct table, scale),
    PUG_METHOD(struct table, four),
    PUG_METHOD(struct table, reverse),
    PUG_METHOD_STACK(struct table, huge, sizeof(struct huge)),
    PUG_METHOD(struct table, wide),
    PUG_METHOD(struct table, sum_of),
    PUG_METHOD(struct table, vector),
    PUG_METHOD(struct table, boolean),
    PUG_METHOD(struct table, text),
    PUG_METHOD(struct table, recurse),
    PUG_METHOD(struct table, missing),
    PUG_METHOD(struct table, jump),
    PUG_METHOD(struct table, nested),
};

/* Both calls, their results compared as bytes (`bytes` of them, if not all are the value). */
#define SAME(type, bytes, member, ...)                                                             \
    do {                                                                                           \
        __typeof__(type) x = plain.member(__VA_ARGS__), y = through.member(__VA_ARGS__);           \
        calls++;                                                                                   \
        if (memcmp(&x, &y, (bytes) ? (size_t)(bytes) : sizeof x) != 0) {                           \
            printf("%s gives something else\n", #member);                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void all(long n)
{
    struct big big;
    static struct huge full;
    for (int i = 0; i < 25; i++)
        big.v[i] = n * i;
    for (size_t i = 0; i < sizeof full.v; i++)
        full.v[i] = (char)(n + (long)i * 7);
    through.nothing();
    calls++;
    SAME(long, 0, integers, n, -1, 2, -3, 4u, n *n);
    SAME(long, 0, twelve, n, 2, 3, 4, 5, 6, 7, n, 9, 10, -n, 12);
    SAME(double, 0, doubles, 1.5, 2.5f, 3, 4, 5, 6, 7, 8, (double)n, 10.25f);
    SAME(float, 0, single, 1.25f, (int)n);
    SAME(long double, sizeof(long double) == 16 ? 10 : 0, longest, 1.1L * n, 3, 2.7L);
    {
        long double complex a = plain.longest_complex(1.5L + 2 * n * I, 3 + 4 * I),
                            b = through.longest_complex(1.5L + 2 * n * I, 3 + 4 * I);
        calls++;
        if (creall(a) != creall(b) || cimagl(a) != cimagl(b)) {
            puts("longest_complex gives something else");
            exit(1);
        }
    }
    SAME(double complex, 0, complexes, 1.5f + (float)n * I, 2 - 3 * I);
    SAME(struct two_ints, 0, pair, ((struct two_ints){n, 2}), 5);
    SAME(struct mixed, 0, mix, 3, ((struct mixed){1.5, n}));
    SAME(struct floats, 0, scale, ((struct floats){1, 2, (float)n}), 1.5f);
    SAME(struct four_doubles, 0, four, ((struct four_doubles){{1, 2, 3, (double)n}}), 2.5);
    SAME(struct big, 0, reverse, big, n);
    SAME(long, 0, huge, full, n);
    SAME(__int128, 0, wide, (__int128)n << 70, 3, -1);
    SAME(double, 0, sum_of, "idlLiddddddddddiiiiiiilL", 1, 2.5, n, 3.5L, 4, 5.0, 6.0, 7.0, 8.0, 9.0,
         10.0, 11.0, 12.0, 13.0, 14.0, 1, 2, 3, 4, 5, 6, 7, n * 2, 8.25L);
    SAME(double, 0, sum_of, "");
    SAME(v4, 0, vector, ((v4){1, 2, 3, (float)n}), ((v4){5, 6, 7, 8}));
    SAME(_Bool, 0, boolean, n & 1, (unsigned char)n);
    SAME(const char *, 0, text, "abcdef", 3);
    if (through.recurse(20) != plain.recurse(20)) {
        puts("recurse gives something else");
        exit(1);
    }
    calls += 21 + 20;
}

#if defined(__x86_64__) && !defined(NO_AVX)
/* Vectors of 32 and 64 bytes, in registers that only some processors have. */
struct wide_table {
    v8 (*eight)(v8, v8, int);
    v16 (*sixteen)(v16, v16);
};
__attribute__((target("avx"))) static KEEP v8 eight(v8 a, v8 b, int n)
{
    return a * b + (float)n;
}
__attribute__((target("avx512f"))) static KEEP v16 sixteen(v16 a, v16 b)
{
    return a * b + a;
}
__attribute__((target("avx"))) static KEEP int eight_same(v8 (*one)(v8, v8, int),
                                                          v8 (*other)(v8, v8, int))
{
    v8 a = {1, 2, 3, 4, 5, 6, 7, 8}, b = {9, 8, 7, 6, 5, 4, 3, 2};
    v8 x = one(a, b, 3), y = other(a, b, 3);
    calls++;
    return memcmp(&x, &y, sizeof x) == 0;
}
__attribute__((target("avx512f"))) static KEEP int sixteen_same(v16 (*one)(v16, v16),
                                                                v16 (*other)(v16, v16))
{
    v16 a = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, b = a + 1.5f;
    v16 x = one(a, b), y = other(a, b);
    calls++;
    return memcmp(&x, &y, sizeof x) == 0;
}
static void wide_vectors(void)
{
    static const struct pug_method m[] = {PUG_METHOD(struct wide_table, eight),
                                          PUG_METHOD(struct wide_table, sixteen)};
    struct wide_table w = {eight, sixteen};
    if (PUG_WRAP_METHODS(&w, "wide.", m) != 0)
        exit(1);
    if ((__builtin_cpu_supports("avx") && !eight_same(eight, w.eight)) ||
        (__builtin_cpu_supports("avx512f") && !sixteen_same(sixteen, w.sixteen))) {
        puts("wide vectors give something else");
        exit(1);
    }
}
#else
static void wide_vectors(void)
{
}
#endif

static void *thread(void *n)
{
    for (int i = 0; i < 20; i++) {
        struct two_ints p = through.pair((struct two_ints){(long)(size_t)n, i}, 3);
        if (p.a != i + 3 || p.b != (long)(size_t)n - 3)
            exit(3);
    }
    return NULL;
}

static int inside(int n)
{
    return (int)(n + through.integers(1, 2, 3, 4, 5, 6));
}

static KEEP void jumped(void)
{
    jmp_buf back;
    if (setjmp(back) == 0)
        through.jump(back);
}

int main(void)
{
    struct pug_counts counts = {.size = sizeof counts};
    memcpy(&through, &plain, sizeof through);
    if (PUG_WRAP_METHODS(&through, "w.", methods) != 0 || through.missing)
        return 2;
    all(-5); /* tracing is off */
    calls = 0;
    if (pug_start(NULL) != 0 || !pug_on())
        return 2;
    for (long n = 0; n < 5; n++)
        all(n);
    wide_vectors();
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, thread, (void *)i) != 0)
            return 2;
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    calls += 4 * 20;
    if (through.nested(inside, 4) != plain.nested(inside, 4))
        return 3;
    calls += 3;
    { /* what a longjmp leaves open ends with the scope around it */
        PUG_SPAN("around");
        jumped();
    }
    calls += 2;
    {
        PUG_SPAN("after");
    }
    calls++;
    struct pug_context none = pug_context_current();
    if (pug_context_valid(&none)) {
        puts("a span is open that should have ended");
        return 1;
    }
    if (PUG_UNWRAP_METHODS(&through, methods) != 0 ||
        memcmp(&through, &plain, sizeof through) != 0) {
        puts("unwrapping does not give the originals back");
        return 1;
    }
    pug_stop();
    pug_counts_read(&counts);
    if (counts.recorded != calls) {
        printf("%lu calls left %lu spans\n", calls, (unsigned long)counts.recorded);
        return 1;
    }
    printf("%lu calls, same\n", calls);
    return 0;
}
