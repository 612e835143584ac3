#include "sdk/ot_state.h"

#include "sdk/w3c.h"

#define OT_DIGITS 14

/* Digits from the left; what is not there is zero. */
static bool digits_get(struct str text, size_t digits_min, uint64_t *ret)
{
    uint64_t v = 0;
    if (text.len < digits_min || text.len > OT_DIGITS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *ret = v << 4 * (OT_DIGITS - text.len);
    return true;
}

static void digits_put(char out[OT_DIGITS], uint64_t v)
{
    for (int i = OT_DIGITS; i-- > 0; v >>= 4)
        out[i] = "0123456789abcdef"[v & 15];
}

size_t ot_th_put(char out[14], uint64_t threshold)
{
    size_t n = OT_DIGITS;
    digits_put(out, threshold);
    while (n > 1 && out[n - 1] == '0')
        n--;
    return n;
}

/* The next part of a list; empty ones are skipped. False at the end. */
static bool part_next(struct str *rest, char at, struct str *ret)
{
    while (rest->len) {
        const char *end = memchr(rest->ptr, at, rest->len);
        size_t n = end ? (size_t)(end - rest->ptr) : rest->len;
        *ret = (struct str){rest->ptr, n};
        *rest = str_skip(*rest, n + (end != NULL));
        if (n)
            return true;
    }
    return false;
}

static bool is_ot(struct str member)
{
    return str_starts(member, STR("ot="));
}

static bool is_th(struct str part)
{
    return str_starts(part, STR("th:"));
}

static bool is_rv(struct str part)
{
    return str_starts(part, STR("rv:"));
}

void ot_state_read(struct str tracestate, struct ot_state *ret)
{
    struct str member, part;
    *ret = (struct ot_state){.has_th = false};
    while (part_next(&tracestate, ',', &member)) {
        if (!is_ot(member))
            continue;
        struct str value = str_skip(member, 3);
        if (value.len > OT_VALUE_MAX)
            return;
        while (part_next(&value, ';', &part)) {
            if (is_th(part))
                ret->has_th = digits_get(str_skip(part, 3), 1, &ret->th);
            else if (is_rv(part))
                ret->has_rv = digits_get(str_skip(part, 3), OT_DIGITS, &ret->rv);
        }
        return;
    }
}

uint64_t ot_randomness(const struct pug_context *context, const struct ot_state *state)
{
    uint64_t low;
    if (state && state->has_rv)
        return state->rv;
    memcpy(&low, context->trace_id + 8, 8);
    return __builtin_bswap64(low) & (OT_RANGE - 1);
}

/* ---- writing ---- */

struct out {
    char *at;
    size_t n, max;
};

/* All of it or nothing. */
static bool out_put(struct out *o, char separator, struct str s)
{
    size_t n = s.len + (separator != 0);
    if (n > o->max - o->n)
        return false;
    if (separator)
        o->at[o->n++] = separator;
    memcpy(o->at + o->n, s.ptr, s.len);
    o->n += s.len;
    return true;
}

/* The value of the entry, the first if there are several; what comes after is passed over by everybody. */
static struct str ot_value(struct str tracestate)
{
    struct str member;
    while (part_next(&tracestate, ',', &member))
        if (is_ot(member))
            return str_skip(member, 3);
    return STR_NONE;
}

void ot_state_set_th(struct pug_context *context, const uint64_t *threshold)
{
    char text[PUG_TRACESTATE_MAX], th[3 + OT_DIGITS] = "th:", rv[3 + OT_DIGITS] = "rv:";
    struct str all = {context->tracestate, context->tracestate_len}, rest = all, member, part;
    struct out o = {text, 3, 3 + OT_VALUE_MAX};
    struct ot_state before;
    size_t members = 0;
    ot_state_read(all, &before);
    memcpy(text, "ot=", 3);
    if (threshold)
        out_put(&o, 0, (struct str){th, 3 + ot_th_put(th + 3, *threshold)});
    if (before.has_rv) {
        digits_put(rv + 3, before.rv);
        out_put(&o, o.n > 3 ? ';' : 0, (struct str){rv, sizeof rv});
    }
    for (struct str value = ot_value(all); part_next(&value, ';', &part);)
        if (!is_th(part) && !is_rv(part))
            out_put(&o, o.n > 3 ? ';' : 0, part);
    if (o.n == 3)
        o.n = 0;
    else
        members++;
    o.max = sizeof text;
    while (part_next(&rest, ',', &member) && members < W3C_MEMBERS_MAX)
        if (!is_ot(member) && out_put(&o, o.n ? ',' : 0, member))
            members++;
    memcpy(context->tracestate, text, o.n);
    context->tracestate_len = (uint16_t)o.n;
}

void ot_state_repair(struct pug_context *context)
{
    struct ot_state s;
    if (!context->tracestate_len)
        return;
    ot_state_read((struct str){context->tracestate, context->tracestate_len}, &s);
    if (s.has_th && (ot_randomness(context, &s) >= s.th) != (context->flags & PUG_FLAG_SAMPLED))
        ot_state_set_th(context, NULL);
}

/* ---- probabilities ---- */

/* By the specification's "Converting floating-point probability to threshold value": 2 - p lies between 1 and 2, so the
 * 52 bits of its fraction are the first 13 digits of T. */
uint64_t ot_threshold(double probability, int precision)
{
    uint64_t bits;
    double rejected, half = 0.5;
    if (!(probability >= 1.0 / (double)OT_RANGE))
        return OT_RANGE;
    if (probability >= 1)
        return 0;
    memcpy(&bits, &probability, 8);
    int exponent = (int)(bits >> 52 & 0x7ff) - 1022; /* as of frexp: not positive here */
    int digits = precision + -exponent / 4;          /* leading f's do not count */
    digits = digits < 1 ? 1 : digits > 12 ? 12 : digits;
    for (int i = 0; i < digits; i++)
        half /= 16;
    rejected = 2 - probability + half;
    if (rejected >= 2)
        bits = (UINT64_C(1) << 52) - 1;
    else
        memcpy(&bits, &rejected, 8);
    bits &= (UINT64_C(1) << 52) - 1;
    return bits >> 4 * (13 - digits) << 4 * (13 - digits) << 4;
}
