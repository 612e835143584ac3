/* What the two halves of the parser share: traceql.c (expressions) and traceql_pipeline.c (the rest).
 * Inside src/query only. After the first error everything returns NULL. */
#ifndef QUERY_TRACEQL_PARSE_H
#define QUERY_TRACEQL_PARSE_H

#include "query/traceql_lex.h"

/* How tightly operators bind. */
enum { PRECEDENCE_LOWEST = 1, PRECEDENCE_SIGN = 4, PRECEDENCE_POW = 6 };

struct traceql_regexes {
    struct traceql_regexes *next;
    struct pattern *regex;
};

struct parser {
    struct lexer lexer;
    struct token token; /* the one to look at */
    struct traceql *query;
    struct error_detail *detail;
    int err; /* the first error */
    unsigned nodes, depth;
};

/* All of these return NULL, for the caller to do the same. */
void *parser_fail(struct parser *p, int code, size_t position, const char *format, ...)
    PRINTF_LIKE(4, 5);
void *parser_expected(struct parser *p, const char *what);

void parser_advance(struct parser *p);
bool parser_enter(struct parser *p); /* one level deeper; `p->depth--` leaves it */
void *parser_node(struct parser *p, size_t size);

/* An expression whose operators bind at least so tightly. */
const struct traceql_expr *parser_expr(struct parser *p, int least);
/* What stands between the braces of a filter. */
const struct traceql_expr *parser_condition(struct parser *p, const struct traceql_expr *e,
                                            const char *where);
/* An attribute or an intrinsic. */
const struct traceql_expr *parser_field(struct parser *p);
/* 0: the token is no operator. */
int parser_precedence(const struct token *t);
/* Whether values of these types can be compared; fails when not. */
bool parser_comparable(struct parser *p, enum traceql_op op, uint32_t at, enum traceql_type a,
                       enum traceql_type b);
/* The type of the result, from those of the operands, which are numbers. */
enum traceql_type parser_result_type(enum traceql_type left, enum traceql_type right);

bool traceql_op_is_logic(enum traceql_op op);
bool traceql_op_is_comparison(enum traceql_op op);
bool traceql_type_is_number(enum traceql_type type);
const char *traceql_type_text(enum traceql_type type);
/* How an intrinsic is written. */
const char *traceql_field_word(enum traceql_field field);

#endif
