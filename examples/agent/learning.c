#include "learning.h"

#include "common.h"
#include "db.h"
#include "skills.h"

#include <stdio.h>
#include <string.h>

#include <pugmark/pugmark.h>

#define HABIT 2 /* so often, and it is one */

static char last_skill[64];
static size_t wrote;

/* A chain of tools that is used again and again becomes a skill. */
static void notice_habit(const char *tools)
{
    static const struct statement count = {
        "INSERT", "habits",
        "INSERT INTO habits(tools, seen, example) VALUES(?1,1,'') ON CONFLICT DO UPDATE SET"
        " seen=seen+1"};
    static const struct statement select = {"SELECT", "habits",
                                            "SELECT 1 FROM habits WHERE tools=?1 AND seen=?2"};
    db_run(&count, "s", tools);
    json_t *rows = db_rows(&select, "si", tools, (int64_t)HABIT);
    bool habit = json_array_size(rows) > 0;
    json_decref(rows);
    if (!habit)
        return;
    char name[64], purpose[160];
    int n = snprintf(name, sizeof name, "habit-%s", tools);
    for (char *at = name; *at; at++)
        if (*at == ' ')
            *at = '-';
    if (n < (int)sizeof name &&
        snprintf(purpose, sizeof purpose, "answers with %s one after the other", tools) <
            (int)sizeof purpose &&
        skills_generate(name, purpose) == 0)
        wrote++;
}

void learning_after_turn(const char *tools, const char *skill, bool failed)
{
    snprintf(last_skill, sizeof last_skill, "%s", skill ? skill : "");
    if (!skill && !strchr(tools, ' '))
        return; /* one tool, or none, by no rule: there is nothing in it to learn */
    PUG_SPAN("agent.learning", PUG_STR("learning.tools", tools), PUG_STR("skill.name", skill));
    if (skill)
        wrote += skills_evolve(skill, !failed);
    if (strchr(tools, ' ') && !failed)
        notice_habit(tools);
}

bool learning_feedback(bool good)
{
    if (!*last_skill)
        return false;
    PUG_SPAN("agent.learning", PUG_STR("skill.name", last_skill), PUG_BOOL("learning.good", good));
    wrote += skills_evolve(last_skill, good);
    return true;
}

bool learning_wrote(void)
{
    bool any = wrote > 0;
    wrote = 0;
    return any;
}
