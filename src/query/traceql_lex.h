/* Tokens of TraceQL. Inside src/query only. */
#ifndef QUERY_TRACEQL_LEX_H
#define QUERY_TRACEQL_LEX_H

#include "query/traceql.h"

enum token_type {
    TOKEN_END,
    TOKEN_ERROR, /* the detail is filled */
    TOKEN_BRACE_OPEN,
    TOKEN_BRACE_CLOSE,
    TOKEN_PAREN_OPEN,
    TOKEN_PAREN_CLOSE,
    TOKEN_COMMA,
    TOKEN_PIPE,
    TOKEN_OP,         /* `op` */
    TOKEN_STRUCTURAL, /* operators that exist between spansets only, `>` and `<` not among them;
                       * `op` is of enum traceql_spanset_op */
    TOKEN_LITERAL,    /* `value` and `type` */
    TOKEN_WORD,       /* `text`: a name that is neither a literal nor part of an attribute */
    TOKEN_INTRINSIC,  /* `text`: with its colon, "span:name" */
    TOKEN_ATTRIBUTE,  /* `field` and `key`; `of_parent` */
};

struct token {
    uint8_t type, op, field, literal_type;
    bool of_parent;
    uint32_t position, end;
    struct str text; /* as written */
    struct str key;
    struct value value;
};

struct lexer {
    struct str text;
    size_t at;
    struct arena *arena;
    struct error_detail *detail;
    int err; /* after TOKEN_ERROR */
};

void lexer_next(struct lexer *lexer, struct token *ret);
/* What stands there, for messages: `">="`, `the end`. */
const char *token_describe(const struct token *token, char out[64]);
const char *traceql_op_text(enum traceql_op op);

#endif
