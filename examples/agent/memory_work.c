/* What happens to memories as time goes by.
 *
 * Within a session: its oldest messages become a summary when they are too many (probe, summarize).
 * Behind it: a thread that goes round every now and then, and at the end of a session:
 *
 *   memory.consolidation_loop   one round
 *     memory.consolidation      memories that say the same become one
 *     memory.forgetting         weights decay; what is light, or one too many, goes
 *     memory.cross_session      sessions that are over get a digest, for the others to read */
#include "memory.h"

#include "db.h"
#include "llm.h"
#include "queues.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pugmark/capture.h>

#define KEEP_MESSAGES 4 /* the newest are never compacted */
#define ALIKE_SCORE 0.85
#define HALF_LIFE_S (14 * 86400)
#define WEIGHT_MIN 0.05
#define MEMORIES_MAX 5000
#define ASK_MS 5000

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

/* ---- summaries ---- */

bool memory_summary(const char *session, struct text *ret_text, int64_t *ret_until)
{
    static const struct statement select = {
        "SELECT", "summaries",
        "SELECT content, until FROM summaries WHERE session=?1 ORDER BY id DESC LIMIT 1"};
    json_t *rows = db_rows(&select, "s", session), *row = json_array_get(rows, 0);
    bool found = row != NULL;
    *ret_until = json_integer_value(json_object_get(row, "until"));
    if (found)
        text_add(ret_text, string_at(row, "content"));
    json_decref(rows);
    return found;
}

size_t memory_compaction_probe(const json_t *messages, size_t tokens_max)
{
    PUG_SPAN("memory.compaction_probe");
    size_t n = json_array_size(messages), tokens = 0, i;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        tokens += tokens_of(string_at(m, "content"));
    }
    size_t until = tokens > tokens_max && n > KEEP_MESSAGES ? n - KEEP_MESSAGES : 0;
    /* A question and its answer stay together. */
    while (until > 0 && strcmp(string_at(json_array_get(messages, until - 1), "role"), "user") == 0)
        until--;
    pug_set_int(PUG_CURRENT, "context.tokens", (int64_t)tokens);
    pug_set_int(PUG_CURRENT, "context.compactable_messages", (int64_t)until);
    return until;
}

int memory_summarize(const char *session, const json_t *messages)
{
    static const struct statement insert = {
        "INSERT", "summaries", "INSERT INTO summaries(session, content, until) VALUES(?1,?2,?3)"};
    PUG_SPAN("memory.summarize", PUG_INT("memory.messages", (int64_t)json_array_size(messages)));
    AUTO_TEXT struct text said = {0}, before = {0};
    int64_t until = 0;
    size_t i;
    json_t *m;
    if (memory_summary(session, &before, &until))
        text_addf(&said, "summary: %s\n", before.bytes);
    json_array_foreach(messages, i, m)
    {
        text_addf(&said, "%s: %s\n", string_at(m, "role"), string_at(m, "content"));
        until = json_integer_value(json_object_get(m, "id"));
    }
    json_t *question = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content",
                                 "Summarize the conversation.", "role", "user", "content",
                                 said.bytes);
    struct llm_reply reply;
    int result = llm_chat(LLM_SUMMARY, question, NULL, NULL, NULL, &reply);
    json_decref(question);
    if (result != 0)
        return -1;
    result = *reply.text && db_run(&insert, "ssi", session, reply.text, until) > 0 ? 0 : -1;
    llm_reply_done(&reply);
    return result;
}

/* ---- between sessions ---- */

json_t *memory_digests(const char *session, int max)
{
    static const struct statement select = {
        "SELECT", "digests",
        "SELECT content FROM digests WHERE session<>?1 ORDER BY rowid DESC LIMIT ?2"};
    json_t *rows = db_rows(&select, "si", session, (int64_t)max), *list = json_array(), *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        json_array_append(list, json_object_get(row, "content"));
    }
    json_decref(rows);
    return list;
}

/* What weighed most in it. */
static void digest_session(const char *session)
{
    static const struct statement select = {
        "SELECT", "memories",
        "SELECT content FROM memories WHERE session=?1 ORDER BY weight DESC, id LIMIT 3"};
    static const struct statement upsert = {"INSERT", "digests",
                                            "INSERT INTO digests(session, content) VALUES(?1,?2)"
                                            " ON CONFLICT DO UPDATE SET content=excluded.content"};
    PUG_SPAN("memory.cross_session");
    AUTO_TEXT struct text digest = {0};
    json_t *rows = db_rows(&select, "s", session), *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        text_addf(&digest, "%s%s", i ? "; " : "", string_at(row, "content"));
    }
    json_decref(rows);
    if (digest.len)
        db_run(&upsert, "ss", session, digest.bytes);
}

static void consolidate(void)
{
    static const struct statement pairs = {
        "SELECT", "vectors",
        "SELECT a.key AS keep, b.key AS fold FROM vectors a JOIN vectors b ON "
        "b.collection=a.collection"
        " AND b.rowid>a.rowid WHERE a.collection='memories' AND cosine(a.vector, b.vector)>=?1"
        " ORDER BY a.rowid, b.rowid LIMIT 100"};
    static const struct statement add = {
        "UPDATE", "memories",
        "UPDATE memories SET weight=weight+(SELECT weight FROM memories WHERE content=?2)"
        " WHERE content=?1 AND EXISTS(SELECT 1 FROM memories WHERE content=?2)"};
    static const struct statement drop = {"DELETE", "memories",
                                          "DELETE FROM memories WHERE content=?1"};
    PUG_SPAN("memory.consolidation");
    json_t *rows = db_rows(&pairs, "d", ALIKE_SCORE), *row;
    size_t i;
    int64_t folded = 0;
    json_array_foreach(rows, i, row)
    {
        const char *keep = string_at(row, "keep"), *fold = string_at(row, "fold");
        db_begin();
        if (db_run(&add, "ss", keep, fold) > 0) { /* else one of them was folded before */
            folded += db_run(&drop, "s", fold);
            memory_vector_drop("memories", fold);
        }
        db_commit();
    }
    json_decref(rows);
    pug_set_int(PUG_CURRENT, "memory.folded", folded);
}

static void forget(void)
{
    /* 2^-(age/half-life), and each use makes it last. */
    static const struct statement light = {"SELECT", "memories",
                                           "SELECT content FROM (SELECT content, "
                                           "weight*(1+uses)*pow(0.5, (?1-at)/CAST(?2 AS REAL)) AS w"
                                           " FROM memories) WHERE w<?3 UNION SELECT content FROM "
                                           "(SELECT content FROM memories ORDER BY"
                                           " weight DESC, id DESC LIMIT -1 OFFSET ?4)"};
    static const struct statement drop = {"DELETE", "memories",
                                          "DELETE FROM memories WHERE content=?1"};
    PUG_SPAN("memory.forgetting");
    json_t *rows = db_rows(&light, "iidi", epoch_s(), (int64_t)HALF_LIFE_S, WEIGHT_MIN,
                           (int64_t)MEMORIES_MAX),
           *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        db_begin();
        db_run(&drop, "s", string_at(row, "content"));
        memory_vector_drop("memories", string_at(row, "content"));
        db_commit();
    }
    pug_set_int(PUG_CURRENT, "memory.forgotten", (int64_t)json_array_size(rows));
    json_decref(rows);
}

/* ---- the loop ---- */

static struct {
    pthread_t thread;
    int wake; /* eventfd: asked, or cancelled */
    int interval_ms;
    /* under the lock */
    pthread_mutex_t lock;
    pthread_cond_t done;
    char session[64]; /* over; "" when there is none */
    struct pug_capture asker;
    unsigned asked, rounds;
} loop = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void go_round(void)
{
    pthread_mutex_lock(&loop.lock);
    struct pug_context asker;
    bool linked = pug_capture_context(&loop.asker, &asker);
    char session[sizeof loop.session];
    unsigned asked = loop.asked;
    memcpy(session, loop.session, sizeof session);
    *loop.session = '\0';
    loop.asker = (struct pug_capture){0};
    pthread_mutex_unlock(&loop.lock);
    {
        /* Its own trace: it gathers what many turns left. Who asked for it is linked. */
        PUG_SPAN("memory.consolidation_loop");
        if (linked)
            pug_link(PUG_CURRENT, &asker);
        consolidate();
        forget();
        if (*session)
            digest_session(session);
    }
    pthread_mutex_lock(&loop.lock);
    loop.rounds = asked;
    pthread_cond_broadcast(&loop.done);
    pthread_mutex_unlock(&loop.lock);
}

static void *run_loop(void *arg)
{
    (void)arg;
    for (;;) {
        struct pollfd p = {.fd = loop.wake, .events = POLLIN};
        uint64_t n;
        if (poll(&p, 1, loop.interval_ms) > 0 && read(loop.wake, &n, sizeof n) < 0 &&
            errno != EAGAIN)
            return NULL;
        if (queues_cancelled(CANCEL_LOOP))
            return NULL;
        go_round();
    }
}

static void wake_loop(void)
{
    uint64_t one = 1;
    if (write(loop.wake, &one, sizeof one) < 0)
        say("the consolidation cannot be woken: %s", strerror(errno));
}

void memory_loop_start(int interval_ms)
{
    loop.interval_ms = interval_ms;
    loop.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop.wake < 0 || pthread_create(&loop.thread, NULL, run_loop, NULL) != 0)
        die("no consolidation: %s", strerror(errno));
}

bool memory_loop_ask(const char *session)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ASK_MS / 1000;
    pthread_mutex_lock(&loop.lock);
    snprintf(loop.session, sizeof loop.session, "%s", session);
    loop.asker = pug_capture_current();
    unsigned mine = ++loop.asked;
    wake_loop();
    int err = 0;
    while ((int)(loop.rounds - mine) < 0 && err == 0)
        err = pthread_cond_timedwait(&loop.done, &loop.lock, &until);
    pthread_mutex_unlock(&loop.lock);
    return err == 0;
}

void memory_loop_stop(void)
{
    wake_loop();
    pthread_join(loop.thread, NULL);
    close(loop.wake);
}
