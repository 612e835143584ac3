#include "skills.h"

#include "db.h"
#include "llm.h"
#include "memory.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define SKILLS_MAX 64
#define WORDS_MAX 256      /* of one skill */
#define MATCH_SCORE 0.25   /* of the meaning, else only words count */
#define MATCH_BM25 1.0     /* of the words, else only the meaning counts */
#define FUSION_CONSTANT 60 /* reciprocal rank fusion's k */
#define BAD_MAX 2          /* so often it may do badly */

struct skill {
    char *name, *description, *text;
    uint64_t hash; /* of what was embedded; 0: nothing yet */
    char (*words)[32];
    size_t n_words;
    double bm25, similarity;
};

static char folder[PATH_MAX];
static struct skill skills[SKILLS_MAX];
static size_t n_skills;

static const char *string_at(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static void skill_done(struct skill *s)
{
    free(s->name);
    free(s->description);
    free(s->text);
    free(s->words);
    *s = (struct skill){0};
}

static struct skill *skill_named(const char *name)
{
    for (size_t i = 0; i < n_skills; i++)
        if (strcmp(skills[i].name, name) == 0)
            return &skills[i];
    return NULL;
}

/* ---- the registry ---- */

/* The value of `key:` in the front matter, for free(); NULL when there is none. */
static char *front_matter(const char *content, const char *key)
{
    size_t n = strlen(key);
    if (strncmp(content, "---\n", 4) != 0)
        return NULL;
    for (const char *line = content + 4; *line && strncmp(line, "---", 3) != 0;) {
        size_t len = strcspn(line, "\n");
        if (len > n && strncmp(line, key, n) == 0 && line[n] == ':') {
            AUTO_FREE char *value = copyn(line + n + 1, len - n - 1);
            return copy(trim(value));
        }
        line += len + (line[len] == '\n');
    }
    return NULL;
}

static bool load_one(void *user, const char *path, const char *content)
{
    struct skill *old = user; /* SKILLS_MAX of them */
    struct text clean = {0};
    text_add(&clean, content);
    text_clean(&clean);
    struct skill s = {.name = front_matter(clean.bytes, "name"),
                      .description = front_matter(clean.bytes, "description")};
    const char *body = strstr(clean.bytes, "\n---\n");
    if (!s.name || !*s.name || !s.description || !body || skill_named(s.name)) {
        say("%s is no skill: it has no name of its own, or no description", path);
        skill_done(&s);
        text_done(&clean);
        return true;
    }
    s.text = copy(body + 5);
    text_done(&clean);
    s.words = need(calloc(WORDS_MAX, sizeof *s.words));
    const char *texts[] = {s.name, s.description, s.text};
    for (size_t i = 0; i < 3; i++)
        for (const char *at = texts[i];
             s.n_words < WORDS_MAX && next_word(&at, s.words[s.n_words], sizeof *s.words);)
            s.n_words++;
    for (size_t i = 0; i < SKILLS_MAX; i++) /* what is embedded stays so */
        if (old[i].name && strcmp(old[i].name, s.name) == 0)
            s.hash = old[i].hash;
    skills[n_skills++] = s;
    return n_skills < SKILLS_MAX;
}

static void registry_load(void)
{
    PUG_SPAN("skill.registry_load");
    struct skill old[SKILLS_MAX];
    memcpy(old, skills, sizeof old);
    memset(skills, 0, sizeof skills);
    n_skills = 0;
    tree_walk(folder, load_one, old);
    pug_set_int(PUG_CURRENT, "skill.count", (int64_t)n_skills);
    for (size_t i = 0; i < SKILLS_MAX; i++) {
        if (old[i].name && !skill_named(old[i].name))
            memory_vector_drop("skills", old[i].name);
        skill_done(&old[i]);
    }
}

/* Vectors for those that are new or were changed. */
static void matcher_sync(void)
{
    PUG_SPAN("skill.matcher_sync");
    int64_t embedded = 0;
    for (size_t i = 0; i < n_skills; i++) {
        AUTO_TEXT struct text t = {0};
        text_addf(&t, "%s: %s", skills[i].name, skills[i].description);
        uint64_t hash = hash_text(t.bytes, t.len);
        float vector[EMBED_DIM];
        if (hash == skills[i].hash || llm_embed(t.bytes, vector) != 0 ||
            memory_vector_put("skills", skills[i].name, vector) != 0)
            continue;
        skills[i].hash = hash;
        embedded++;
    }
    pug_set_int(PUG_CURRENT, "skill.embedded", embedded);
}

void skills_start(const char *dir)
{
    snprintf(folder, sizeof folder, "%s", dir);
    registry_load();
    matcher_sync();
}

void skills_stop(void)
{
    for (size_t i = 0; i < n_skills; i++)
        skill_done(&skills[i]);
    n_skills = 0;
}

size_t skills_count(void)
{
    return n_skills;
}

void skills_hot_reload(void)
{
    PUG_SPAN("skill.hot_reload");
    registry_load();
    matcher_sync();
}

/* ---- matching ---- */

static size_t count_word(const struct skill *s, const char *word)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_words; i++)
        n += strcmp(s->words[i], word) == 0;
    return n;
}

/* Okapi BM25 with k1 1.2 and b 0.75. */
static void bm25_search(const char *query)
{
    PUG_SPAN("skill.bm25_search");
    double average = 0;
    char word[32];
    for (size_t i = 0; i < n_skills; i++) {
        skills[i].bm25 = 0;
        average += (double)skills[i].n_words / (double)n_skills;
    }
    for (const char *at = query; next_word(&at, word, sizeof word);) {
        size_t with = 0;
        for (size_t i = 0; i < n_skills; i++)
            with += count_word(&skills[i], word) > 0;
        double idf = log(1 + ((double)(n_skills - with) + 0.5) / ((double)with + 0.5));
        for (size_t i = 0; with > 0 && strlen(word) > 2 && i < n_skills; i++) {
            double tf = (double)count_word(&skills[i], word);
            double norm = 1.2 * (0.25 + 0.75 * (double)skills[i].n_words / average);
            skills[i].bm25 += idf * tf * 2.2 / (tf + norm);
        }
    }
}

static void vector_match(const char *query)
{
    PUG_SPAN("skill.qdrant_match");
    float vector[EMBED_DIM];
    for (size_t i = 0; i < n_skills; i++)
        skills[i].similarity = 0;
    if (llm_embed(query, vector) != 0)
        return;
    json_t *found = memory_vector_search("skills", vector, MATCH_SCORE, 8), *row;
    size_t i;
    json_array_foreach(found, i, row)
    {
        struct skill *s = skill_named(string_at(row, "key"));
        if (s)
            s->similarity = json_number_value(json_object_get(row, "score"));
    }
    json_decref(found);
}

/* How often it did well, with one good and one bad time to begin with. */
static double success(const char *name)
{
    static const struct statement select = {"SELECT", "skills",
                                            "SELECT good, bad FROM skills WHERE name=?1"};
    json_t *rows = db_rows(&select, "s", name), *row = json_array_get(rows, 0);
    double good = json_number_value(json_object_get(row, "good"));
    double bad = json_number_value(json_object_get(row, "bad"));
    json_decref(rows);
    return (good + 1) / (good + bad + 2);
}

static size_t rank_of(size_t which, bool by_words)
{
    size_t rank = 1;
    for (size_t i = 0; i < n_skills; i++)
        rank += by_words ? skills[i].bm25 > skills[which].bm25
                         : skills[i].similarity > skills[which].similarity;
    return rank;
}

bool skills_match(const char *query, const char **ret_name, const char **ret_text)
{
    PUG_SPAN("skill.match", PUG_STR("skill.matching", "hybrid"));
    double best = 0;
    bm25_search(query);
    vector_match(query);
    for (size_t i = 0; i < n_skills; i++) {
        double score = 0;
        if (skills[i].bm25 >= MATCH_BM25)
            score += 1.0 / (FUSION_CONSTANT + (double)rank_of(i, true));
        if (skills[i].similarity >= MATCH_SCORE)
            score += 1.0 / (FUSION_CONSTANT + (double)rank_of(i, false));
        if (score > 0)
            score *= success(skills[i].name);
        if (score > best) {
            best = score;
            *ret_name = skills[i].name;
            *ret_text = skills[i].text;
        }
    }
    pug_set_str(PUG_CURRENT, "skill.name", best > 0 ? *ret_name : "");
    pug_set_double(PUG_CURRENT, "skill.score", best);
    return best > 0;
}

/* ---- new and better ones ---- */

static int write_skill(const char *name, const char *purpose)
{
    AUTO_TEXT struct text wish = {0};
    text_addf(&wish, "A skill named %s that %s", name, purpose);
    json_t *question = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content",
                                 "Write a skill, with name and description in its front matter.",
                                 "role", "user", "content", wish.bytes);
    struct llm_reply reply;
    int result = llm_chat(LLM_SKILL, question, NULL, NULL, NULL, &reply);
    json_decref(question);
    if (result != 0)
        return -1;
    AUTO_FREE char *written = front_matter(reply.text, "name");
    char file[128];
    result = -1;
    /* What a model says is not trusted with names of files. */
    if (written && strcmp(written, name) == 0 &&
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(name) &&
        snprintf(file, sizeof file, "%s.md", name) < (int)sizeof file)
        result = file_replace(path_join(folder, file).text, reply.text);
    llm_reply_done(&reply);
    return result;
}

int skills_generate(const char *name, const char *purpose)
{
    PUG_SPAN("skill.generate", PUG_STR("skill.name", name));
    int result = write_skill(name, purpose);
    if (result != 0)
        pug_error(PUG_CURRENT, "no skill was written");
    return result;
}

bool skills_evolve(const char *name, bool good)
{
    static const struct statement count = {
        "INSERT", "skills",
        "INSERT INTO skills(name, good, bad) VALUES(?1,?2,?3) ON CONFLICT DO UPDATE SET"
        " good=good+excluded.good, bad=bad+excluded.bad"};
    static const struct statement worse = {
        "SELECT", "skills", "SELECT 1 FROM skills WHERE name=?1 AND bad>=?2 AND bad>good"};
    static const struct statement reset = {"UPDATE", "skills",
                                           "UPDATE skills SET good=0, bad=0 WHERE name=?1"};
    PUG_SPAN("skill.evolution", PUG_STR("skill.name", name), PUG_BOOL("skill.did_well", good));
    const struct skill *s = skill_named(name);
    db_run(&count, "sii", name, (int64_t)good, (int64_t)!good);
    json_t *rows = db_rows(&worse, "si", name, (int64_t)BAD_MAX);
    bool rewritten = s && json_array_size(rows) > 0 && write_skill(s->name, s->description) == 0;
    json_decref(rows);
    if (rewritten)
        db_run(&reset, "s", name);
    pug_set_bool(PUG_CURRENT, "skill.rewritten", rewritten);
    return rewritten;
}
