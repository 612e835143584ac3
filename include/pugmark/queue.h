/* Pugmark: a bounded queue for threads, without tracing and without a library.
 *
 * Any number of senders and receivers; elements of one size go in and out by copy, first in, first
 * out. While it is neither full nor empty nobody waits for anybody and no system call is made. This
 * is what is left of <pugmark/channel.h> under PUG_DISABLE; it may be used for itself.
 *
 *     struct pug_queue *q;
 *     if (pug_queue_new(sizeof(struct job), 100, &q) == 0) ...
 *     pug_queue_send(q, &job, PUG_FOREVER);              // on one thread
 *     while (pug_queue_recv(q, &job, PUG_FOREVER) == 0)  // on another one, until it is closed
 *         work(&job);
 *
 * All functions but new and free are thread-safe; none is signal-safe; none changes errno, and none
 * is a cancellation point. C99 and C++11 with the extensions of gcc and clang; Linux.
 *
 * How. A ring of cells, each with a stamp, after Dmitry Vyukov's bounded MPMC queue (1024cores.net,
 * 2010). A position is a lap (upper bits) and an index; the capacity need not be a power of two.
 *
 * 1. A cell may be written by the sender at position p when its stamp is p, and then has the stamp
 *    p + 1. It may be read by the receiver at position p when its stamp is p + 1, and then has the
 *    stamp of the next lap, p + lap. The two highest bits of a sender's stamp are its note to the
 *    receiver (<pugmark/channel.h> says there what the message has beside its bytes); positions do
 *    not get so far.
 * 2. `tail` and `head` move by compare-and-swap; who moved one owns the cell until it stamps it.
 * 3. The bit `mark` of the tail says closed. It is part of what senders swap, so whoever got a
 *    cell got it before, and its message is still received.
 * 4. Who waits registers (`waiting`), reads `event`, tries once more, and sleeps while `event`
 *    stays so. Who stamps looks at `waiting` afterwards. All four are sequentially consistent, so
 *    one of the two sees the other. */
#ifndef PUGMARK_QUEUE_H
#define PUGMARK_QUEUE_H

#include <errno.h>
#include <pugmark/pugmark.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUG_FOREVER ((unsigned)-1)        /* for timeout_ms */
#define PUG_QUEUE_CAPACITY_MAX (1u << 30) /* elements */

#define PUG__QUEUE_NOTE_SHIFT 62
#define PUG__QUEUE_PLACE (~(UINT64_C(3) << PUG__QUEUE_NOTE_SHIFT))
#define PUG__QUEUE static inline __attribute__((unused))
#define PUG__QUEUE_SPINS 64 /* before somebody sleeps, or gives up on who is between 2 and stamp */
#define PUG__FUTEX_WAIT 128 /* FUTEX_WAIT | FUTEX_PRIVATE_FLAG */
#define PUG__FUTEX_WAKE 129

/* One side's sleepers, on a line of their own. */
struct pug__gate {
    __attribute__((aligned(64))) uint32_t event;
    uint32_t waiting;
};

struct pug_queue {
    /* never change */
    __attribute__((aligned(64))) void *block; /* what malloc gave */
    char *cells;
    size_t capacity, element_bytes, cell_bytes;
    uint64_t mark, lap; /* lap = 2 * mark */
    unsigned lap_shift;

    __attribute__((aligned(64))) uint64_t tail; /* senders */
    __attribute__((aligned(64))) uint64_t head; /* receivers */
    struct pug__gate items, space;
};

/* A cell that is ours until it is stamped. */
struct pug__ticket {
    char *cell; /* the stamp, then the element */
    uint64_t stamp;
    size_t index;
    unsigned note; /* 0 to 3; of who takes: what the sender put in its stamp */
};

/* ---- libc, by other names: a strict C99 program does not declare these ---- */

struct pug__time {
    long sec, nsec;
};
extern long pug__syscall(long number, ...) __asm__("syscall");
extern int pug__clock_gettime(int clock, struct pug__time *ret) __asm__("clock_gettime");

PUG__QUEUE uint64_t pug__now_ns(void)
{
    struct pug__time t = {0, 0};
    pug__clock_gettime(1 /* CLOCK_MONOTONIC */, &t);
    return (uint64_t)t.sec * 1000000000u + (uint64_t)t.nsec;
}

PUG__QUEUE void pug__pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* ---- cells ---- */

PUG__QUEUE uint64_t pug__queue_next(const struct pug_queue *q, uint64_t position)
{
    uint64_t index = position & (q->mark - 1);
    return index + 1 < q->capacity ? position + 1 : (position & ~(q->lap - 1)) + q->lap;
}

PUG__QUEUE uint64_t *pug__queue_stamp(char *cell)
{
    return (uint64_t *)(void *)cell;
}

/* PUG_ERR_FULL, PUG_ERR_CLOSED. */
PUG__QUEUE int pug__queue_claim(struct pug_queue *q, struct pug__ticket *ret)
{
    uint64_t tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);
    for (unsigned spins = 0;;) {
        if (tail & q->mark)
            return PUG_ERR_CLOSED;
        size_t index = (size_t)(tail & (q->mark - 1));
        char *cell = q->cells + index * q->cell_bytes;
        uint64_t stamp = __atomic_load_n(pug__queue_stamp(cell), __ATOMIC_SEQ_CST) &
                         PUG__QUEUE_PLACE;
        if (stamp == tail) {
            if (__atomic_compare_exchange_n(&q->tail, &tail, pug__queue_next(q, tail), 1,
                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
                ret->cell = cell;
                ret->stamp = tail + 1;
                ret->index = index;
                return 0;
            }
            continue;
        }
        /* A message of the lap before, or one that is just being taken out. */
        if (stamp + q->lap == tail + 1 &&
            (__atomic_load_n(&q->head, __ATOMIC_SEQ_CST) + q->lap == tail ||
             ++spins > PUG__QUEUE_SPINS))
            return PUG_ERR_FULL;
        pug__pause();
        tail = __atomic_load_n(&q->tail, __ATOMIC_RELAXED);
    }
}

/* PUG_ERR_EMPTY, PUG_ERR_CLOSED. */
PUG__QUEUE int pug__queue_take(struct pug_queue *q, struct pug__ticket *ret)
{
    uint64_t head = __atomic_load_n(&q->head, __ATOMIC_RELAXED);
    for (unsigned spins = 0;;) {
        size_t index = (size_t)(head & (q->mark - 1));
        char *cell = q->cells + index * q->cell_bytes;
        uint64_t noted = __atomic_load_n(pug__queue_stamp(cell), __ATOMIC_SEQ_CST);
        uint64_t stamp = noted & PUG__QUEUE_PLACE;
        if (stamp == head + 1) {
            if (__atomic_compare_exchange_n(&q->head, &head, pug__queue_next(q, head), 1,
                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
                ret->cell = cell;
                ret->stamp = (head & ~(q->lap - 1)) + q->lap + index;
                ret->index = index;
                ret->note = (unsigned)(noted >> PUG__QUEUE_NOTE_SHIFT);
                return 0;
            }
            continue;
        }
        if (stamp == head) {
            uint64_t tail = __atomic_load_n(&q->tail, __ATOMIC_SEQ_CST);
            if ((tail & ~q->mark) == head)
                return tail & q->mark ? PUG_ERR_CLOSED : PUG_ERR_EMPTY;
            if (++spins > PUG__QUEUE_SPINS) /* claimed and not yet written */
                return PUG_ERR_EMPTY;
        }
        pug__pause();
        head = __atomic_load_n(&q->head, __ATOMIC_RELAXED);
    }
}

/* ---- sleeping and waking ---- */

PUG__QUEUE void pug__gate_open(struct pug__gate *gate, int how_many)
{
    int errno_before = errno;
    __atomic_fetch_add(&gate->event, 1, __ATOMIC_SEQ_CST);
    pug__syscall(SYS_futex, &gate->event, PUG__FUTEX_WAKE, how_many, (void *)0, (void *)0, 0);
    errno = errno_before;
}

/* The cell is whole, or empty: the other side may have it. */
PUG__QUEUE void pug__queue_put(const struct pug__ticket *t, struct pug__gate *gate)
{
    __atomic_store_n(pug__queue_stamp(t->cell), t->stamp, __ATOMIC_SEQ_CST);
    if (__builtin_expect(__atomic_load_n(&gate->waiting, __ATOMIC_SEQ_CST) != 0, 0))
        pug__gate_open(gate, 1);
}

/* Until the gate opens; 0 when the time is over. */
PUG__QUEUE int pug__gate_wait(struct pug__gate *gate, uint32_t event, uint64_t deadline_ns)
{
    struct pug__time left = {0, 0};
    int errno_before = errno;
    if (deadline_ns) {
        uint64_t now = pug__now_ns();
        if (now >= deadline_ns)
            return 0;
        left.sec = (long)((deadline_ns - now) / 1000000000u);
        left.nsec = (long)((deadline_ns - now) % 1000000000u);
    }
    pug__syscall(SYS_futex, &gate->event, PUG__FUTEX_WAIT, event, deadline_ns ? &left : (void *)0,
                 (void *)0, 0);
    errno = errno_before;
    return 1;
}

PUG__QUEUE uint64_t pug__deadline(unsigned timeout_ms)
{
    return timeout_ms == PUG_FOREVER ? 0 : pug__now_ns() + (uint64_t)timeout_ms * 1000000u;
}

PUG__QUEUE int pug__queue_try(struct pug_queue *q, int sends, struct pug__ticket *ret)
{
    return sends ? pug__queue_claim(q, ret) : pug__queue_take(q, ret);
}

/* It was full (or, for who receives, empty): tries until it is so no more, or PUG_ERR_TIMEOUT. */
PUG__QUEUE int pug__queue_wait(struct pug_queue *q, int sends, unsigned timeout_ms,
                               struct pug__ticket *ret)
{
    struct pug__gate *gate = sends ? &q->space : &q->items;
    uint64_t deadline_ns = pug__deadline(timeout_ms);
    int meanwhile = sends ? PUG_ERR_FULL : PUG_ERR_EMPTY, code = meanwhile;
    for (int i = 0; i < PUG__QUEUE_SPINS && code == meanwhile; i++) {
        pug__pause();
        code = pug__queue_try(q, sends, ret);
    }
    if (code != meanwhile)
        return code;
    __atomic_fetch_add(&gate->waiting, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        uint32_t event = __atomic_load_n(&gate->event, __ATOMIC_SEQ_CST);
        code = pug__queue_try(q, sends, ret);
        if (code != meanwhile || !pug__gate_wait(gate, event, deadline_ns))
            break;
    }
    __atomic_fetch_sub(&gate->waiting, 1, __ATOMIC_SEQ_CST);
    return code == meanwhile ? PUG_ERR_TIMEOUT : code;
}

PUG__QUEUE uint64_t pug__queue_count(const struct pug_queue *q, uint64_t position)
{
    return (position >> q->lap_shift) * q->capacity + (position & (q->mark - 1));
}

/* ---- for use ---- */

/* A queue of `capacity` elements of `element_bytes` each (1 or more); free it with
 * pug_queue_free(). PUG_ERR_INVALID, PUG_ERR_NOMEM. */
PUG__QUEUE int pug_queue_new(size_t element_bytes, size_t capacity, struct pug_queue **ret)
{
    size_t cell_bytes = (sizeof(uint64_t) + element_bytes + 7) & ~(size_t)7;
    if (element_bytes == 0 || capacity == 0 || capacity > PUG_QUEUE_CAPACITY_MAX ||
        cell_bytes < element_bytes || cell_bytes > (SIZE_MAX - 1024) / capacity)
        return PUG_ERR_INVALID;
    size_t bytes = sizeof(struct pug_queue) + 64 + cell_bytes * capacity;
    char *block = (char *)malloc(bytes);
    if (!block)
        return PUG_ERR_NOMEM;
    struct pug_queue *q = (struct pug_queue *)(void *)(block + (64 - (uintptr_t)block % 64) % 64);
    memset((void *)q, 0, sizeof *q);
    q->block = block;
    q->cells = (char *)(q + 1);
    q->capacity = capacity;
    q->element_bytes = element_bytes;
    q->cell_bytes = cell_bytes;
    q->lap_shift = 1;
    while ((UINT64_C(1) << q->lap_shift) <= 2 * (uint64_t)capacity)
        q->lap_shift++;
    q->lap = UINT64_C(1) << q->lap_shift;
    q->mark = q->lap / 2;
    for (size_t i = 0; i < capacity; i++)
        *pug__queue_stamp(q->cells + i * cell_bytes) = i;
    *ret = q;
    return 0;
}

/* Nobody may be inside. NULL is fine. What was not received is gone. */
PUG__QUEUE void pug_queue_free(struct pug_queue *q)
{
    if (q)
        free(q->block);
}

/* Copies the element in; waits while the queue is full. PUG_ERR_TIMEOUT, PUG_ERR_CLOSED: it was not
 * sent. */
PUG__QUEUE int pug_queue_send(struct pug_queue *q, const void *element, unsigned timeout_ms)
{
    struct pug__ticket t;
    int code = pug__queue_claim(q, &t);
    if (code == PUG_ERR_FULL)
        code = pug__queue_wait(q, 1, timeout_ms, &t);
    if (code == 0) {
        memcpy(t.cell + sizeof(uint64_t), element, q->element_bytes);
        pug__queue_put(&t, &q->items);
    }
    return code;
}

/* The same without waiting: PUG_ERR_FULL, PUG_ERR_CLOSED. */
PUG__QUEUE int pug_queue_try_send(struct pug_queue *q, const void *element)
{
    struct pug__ticket t;
    int code = pug__queue_claim(q, &t);
    if (code == 0) {
        memcpy(t.cell + sizeof(uint64_t), element, q->element_bytes);
        pug__queue_put(&t, &q->items);
    }
    return code;
}

/* Copies the oldest element out; waits while the queue is empty. PUG_ERR_TIMEOUT; PUG_ERR_CLOSED:
 * it is closed and all that was sent has been received. */
PUG__QUEUE int pug_queue_recv(struct pug_queue *q, void *ret_element, unsigned timeout_ms)
{
    struct pug__ticket t;
    int code = pug__queue_take(q, &t);
    if (code == PUG_ERR_EMPTY)
        code = pug__queue_wait(q, 0, timeout_ms, &t);
    if (code == 0) {
        memcpy(ret_element, t.cell + sizeof(uint64_t), q->element_bytes);
        pug__queue_put(&t, &q->space);
    }
    return code;
}

/* The same without waiting: PUG_ERR_EMPTY, PUG_ERR_CLOSED. */
PUG__QUEUE int pug_queue_try_recv(struct pug_queue *q, void *ret_element)
{
    struct pug__ticket t;
    int code = pug__queue_take(q, &t);
    if (code == 0) {
        memcpy(ret_element, t.cell + sizeof(uint64_t), q->element_bytes);
        pug__queue_put(&t, &q->space);
    }
    return code;
}

/* Nothing more can be sent; what was sent can be received. Wakes everybody. May be called twice. */
PUG__QUEUE void pug_queue_close(struct pug_queue *q)
{
    __atomic_fetch_or(&q->tail, q->mark, __ATOMIC_SEQ_CST);
    pug__gate_open(&q->items, 0x7fffffff);
    pug__gate_open(&q->space, 0x7fffffff);
}

/* Elements that were sent, and received, since it was made. */
PUG__QUEUE uint64_t pug_queue_sent(const struct pug_queue *q)
{
    return pug__queue_count(q, __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE) & ~q->mark);
}
PUG__QUEUE uint64_t pug_queue_received(const struct pug_queue *q)
{
    return pug__queue_count(q, __atomic_load_n(&q->head, __ATOMIC_ACQUIRE));
}

#ifdef __cplusplus
}
#endif
#endif
