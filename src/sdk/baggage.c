/* W3C Baggage (Recommendation, 2024-05-23): a value that is the header itself.
 *
 * What comes in is taken to pieces and put together again in one form: members separated by a comma, no
 * white space, key=value;property;key=value. What stands between the separators is kept as it is, so
 * that encodings and properties of others reach the next process unchanged; only the program's own values
 * are encoded and decoded. Invariant: text[0..len) is such a list of n members, and terminated. */
#include "sdk/handover.h"
#include "sdk/propagate.h"

#include "base/err.h"
#include "sdk/options.h"

#define UBERCTX STR("uberctx-")
#define JAEGER_KEY_MAX 128 /* longer keys make no header name */

/* ---- the grammar ---- */

/* tchar of RFC 7230, 3.2.6 */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            !(c && strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return s.len > 0;
}

static bool is_octet(char c)
{
    return c > ' ' && c <= '~' && c != '"' && c != ',' && c != ';' && c != '\\';
}

static bool is_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_octet(s.ptr[i]))
            return false;
    return true;
}

static struct str trim_ows(struct str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = str_skip(s, 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* ---- building ---- */

/* A member that is being written behind the text; nobody sees it before it is done. */
struct writer {
    struct pug_baggage *b;
    size_t at;
    bool full;
};

static void put(struct writer *w, struct str s)
{
    if (w->full || s.len > PUG_BAGGAGE_BYTES_MAX - w->at) {
        w->full = true;
        return;
    }
    if (s.len)
        memcpy(w->b->text + w->at, s.ptr, s.len);
    w->at += s.len;
}

static struct writer member_begin(struct pug_baggage *b)
{
    struct writer w = {b, b->len, b->n >= PUG_BAGGAGE_MEMBERS_MAX};
    if (b->len)
        put(&w, STR(","));
    return w;
}

/* The member is part of the baggage now, or none of it is. */
static bool member_done(struct writer *w)
{
    if (!w->full) {
        w->b->len = (uint16_t)w->at;
        w->b->n++;
    }
    w->b->text[w->b->len] = '\0';
    return !w->full;
}

/* ";property" for each; false when one breaks the format. */
static bool put_properties(struct writer *w, struct str properties)
{
    while (properties.ptr) {
        struct str value, property = str_split(properties, ';', &properties);
        struct str key = trim_ows(str_split(property, '=', &value));
        value = trim_ows(value);
        if (!is_token(key) || !is_value(value))
            return false;
        put(w, STR(";"));
        put(w, key);
        if (value.ptr) {
            put(w, STR("="));
            put(w, value);
        }
    }
    return true;
}

/* "key = value ; properties": false when it breaks the format or finds no room. */
static bool member_add(struct pug_baggage *b, struct str member)
{
    struct str properties, value;
    struct str key = trim_ows(str_split(str_split(member, ';', &properties), '=', &value));
    if (!value.ptr || !is_token(key))
        return false;
    value = trim_ows(value);
    if (!is_value(value))
        return false;
    struct writer w = member_begin(b);
    put(&w, key);
    put(&w, STR("="));
    put(&w, value);
    if (!put_properties(&w, properties))
        w.full = true;
    return member_done(&w);
}

void baggage_add_header(struct pug_baggage *b, struct str text)
{
    while (text.ptr && text.len) {
        struct str member = trim_ows(str_split(text, ',', &text));
        if (member.len && !member_add(b, member))
            propagate_count_damaged();
    }
}

/* Percent-encoded, as far as the format asks for it. */
static void put_encoded(struct writer *w, struct str value)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (is_octet((char)c) && c != '%') {
            put(w, (struct str){value.ptr + i, 1});
        } else {
            char code[3] = {'%', digits[c >> 4], digits[c & 15]};
            put(w, (struct str){code, 3});
        }
    }
}

/* ---- reading ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Into `out`, which has room for text.len. A percent sign that begins no code stands for itself. */
static size_t percent_decode(struct str text, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        int high, low;
        if (text.ptr[i] == '%' && i + 2 < text.len && (high = hex_digit(text.ptr[i + 1])) >= 0 &&
            (low = hex_digit(text.ptr[i + 2])) >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = text.ptr[i];
        }
    }
    return n;
}

/* Bytes of the character at the front of `s`; 0: no character. */
static size_t utf8_len(struct str s)
{
    for (size_t n = 1; n <= 4 && n <= s.len; n++)
        if (str_is_utf8((struct str){s.ptr, n}))
            return n;
    return 0;
}

int pug_baggage_decode(const char *text, size_t len, char *out, size_t size)
{
    char bytes[PUG_BAGGAGE_BYTES_MAX];
    size_t written = 0, whole = 0;
    bool cut = false;
    if (size)
        out[0] = '\0';
    if (!text || len > sizeof bytes)
        return PUG_ERR_INVALID;
    struct str rest = {bytes, percent_decode((struct str){text, len}, bytes)};
    while (rest.len) {
        size_t n = utf8_len(rest);
        struct str piece = n ? (struct str){rest.ptr, n} : STR("\xef\xbf\xbd");
        rest = str_skip(rest, n ? n : 1);
        whole += piece.len;
        cut = cut || written + piece.len >= size; /* no half characters, and none behind a gap */
        if (!cut) {
            memcpy(out + written, piece.ptr, piece.len);
            written += piece.len;
        }
    }
    if (size)
        out[written] = '\0';
    return (int)whole;
}

int pug_baggage_next(const struct pug_baggage *baggage, struct pug_baggage_member *member)
{
    struct str value, properties, rest;
    if (!baggage || baggage->len > PUG_BAGGAGE_BYTES_MAX || member->pug__at >= baggage->len)
        return 0;
    rest = (struct str){baggage->text + member->pug__at, baggage->len - member->pug__at};
    struct str whole = str_split(rest, ',', &rest);
    struct str key = str_split(str_split(whole, ';', &properties), '=', &value);
    *member = (struct pug_baggage_member){
        .key = key.ptr,
        .key_len = key.len,
        .value = value.ptr,
        .value_len = value.len,
        .properties = properties.ptr,
        .properties_len = properties.len,
        .pug__at = (size_t)(whole.ptr - baggage->text) + whole.len + 1,
    };
    return 1;
}

static bool member_has_key(const struct pug_baggage_member *m, struct str key)
{
    return str_eq((struct str){m->key, m->key_len}, key);
}

int pug_baggage_get(const struct pug_baggage *baggage, const char *key, char *out, size_t size)
{
    struct pug_baggage_member m = {0}, last = {0};
    while (key && pug_baggage_next(baggage, &m))
        if (member_has_key(&m, str_from(key)))
            last = m;
    if (last.key)
        return pug_baggage_decode(last.value, last.value_len, out, size);
    if (size)
        out[0] = '\0';
    return PUG_ERR_NOT_FOUND;
}

/* ---- changing ---- */

void pug_baggage_init(struct pug_baggage *baggage)
{
    baggage->n = baggage->len = 0;
    baggage->text[0] = '\0';
}

/* Takes text[from, to) out, with a comma if there is one. */
static void cut(struct pug_baggage *b, size_t from, size_t to)
{
    if (to < b->len)
        to++; /* the comma behind it */
    else if (from)
        from--; /* the one before it */
    memmove(b->text + from, b->text + to, b->len - to);
    b->len = (uint16_t)(b->len - (to - from));
    b->n--;
    b->text[b->len] = '\0';
}

/* Of the first `end` bytes. */
static bool remove_key(struct pug_baggage *b, struct str key, size_t end)
{
    struct pug_baggage_member m = {0};
    bool found = false;
    while (m.pug__at < end && pug_baggage_next(b, &m)) {
        size_t from = (size_t)(m.key - b->text), to = m.pug__at - 1, before = b->len;
        if (!member_has_key(&m, key))
            continue;
        cut(b, from, to);
        end -= before - b->len;
        m.pug__at = from;
        found = true;
    }
    return found;
}

int pug_baggage_remove(struct pug_baggage *baggage, const char *key)
{
    return key && remove_key(baggage, str_from(key), baggage->len) ? 0 : PUG_ERR_NOT_FOUND;
}

int pug_baggage_set(struct pug_baggage *baggage, const char *key, const char *value,
                    const char *properties)
{
    struct pug_baggage changed;
    struct str k = str_from(key), p = str_from(properties);
    if (!is_token(k))
        return PUG_ERR_INVALID;
    /* Into a copy: what it replaces makes room for it, and stays if there is none. */
    changed.n = baggage->n;
    changed.len = baggage->len;
    memcpy(changed.text, baggage->text, baggage->len + 1u);
    remove_key(&changed, k, changed.len);
    struct writer w = member_begin(&changed);
    put(&w, k);
    put(&w, STR("="));
    put_encoded(&w, str_from(value ? value : ""));
    if (p.len && !put_properties(&w, p))
        return PUG_ERR_INVALID;
    if (!member_done(&w))
        return PUG_ERR_FULL;
    memcpy(baggage->text, changed.text, changed.len + 1u);
    baggage->n = changed.n;
    baggage->len = changed.len;
    return 0;
}

/* ---- headers ---- */

static void from_headers(struct pug_baggage *b, pug_carrier_get *get, void *carrier,
                         const char *name)
{
    struct str value;
    for (size_t nth = 0; nth < PUG_BAGGAGE_MEMBERS_MAX; nth++) {
        if (!carrier_get(get, carrier, name, nth, &value))
            break;
        baggage_add_header(b, value);
    }
}

int pug_baggage_extract(pug_carrier_get *get, void *carrier, struct pug_baggage *ret_baggage)
{
    unsigned formats = propagators();
    pug_baggage_init(ret_baggage);
    if (formats & PROPAGATE_BAGGAGE)
        from_headers(ret_baggage, get, carrier, "baggage");
    if (formats & PROPAGATE_JAEGER)
        from_headers(ret_baggage, get, carrier, "jaeger-baggage");
    return ret_baggage->n;
}

int pug_baggage_header(struct pug_baggage *baggage, const char *name, const char *value)
{
    unsigned formats = propagators();
    struct str n = str_from(name), v = str_from(value);
    if (!n.ptr || !v.ptr)
        return 0;
    if (((formats & PROPAGATE_BAGGAGE) && str_eq_nocase(n, STR("baggage"))) ||
        ((formats & PROPAGATE_JAEGER) && str_eq_nocase(n, STR("jaeger-baggage")))) {
        baggage_add_header(baggage, v);
        return 1;
    }
    if (!(formats & PROPAGATE_JAEGER) || n.len <= UBERCTX.len ||
        !str_eq_nocase((struct str){n.ptr, UBERCTX.len}, UBERCTX))
        return 0;
    /* The value is percent-encoded there, too; what is not is ours to encode. */
    struct writer w = member_begin(baggage);
    put(&w, str_skip(n, UBERCTX.len));
    put(&w, STR("="));
    v = trim_ows(v);
    if (is_value(v))
        put(&w, v);
    else
        put_encoded(&w, v);
    if (!is_token(str_skip(n, UBERCTX.len)))
        w.full = true;
    if (!member_done(&w))
        propagate_count_damaged();
    return 1;
}

void baggage_inject_jaeger(struct str text, pug_carrier_set *set, void *carrier)
{
    char name[sizeof "uberctx-" + JAEGER_KEY_MAX], copy[PUG_BAGGAGE_BYTES_MAX + 1];
    while (text.ptr) {
        struct str properties, value, member = str_split(text, ',', &text);
        struct str key = str_split(str_split(member, ';', &properties), '=', &value);
        if (!key.len || key.len > JAEGER_KEY_MAX || value.len > PUG_BAGGAGE_BYTES_MAX)
            continue;
        memcpy(name, UBERCTX.ptr, UBERCTX.len);
        memcpy(name + UBERCTX.len, key.ptr, key.len);
        name[UBERCTX.len + key.len] = '\0';
        if (value.len)
            memcpy(copy, value.ptr, value.len);
        copy[value.len] = '\0';
        set(carrier, name, copy);
    }
}

int pug_baggage_current(struct pug_baggage *ret_baggage)
{
    char buffer[PUG_BAGGAGE_BYTES_MAX + 1];
    struct str text = ambient_baggage(buffer);
    pug_baggage_init(ret_baggage);
    if (!text.len)
        return 0;
    memmove(ret_baggage->text, text.ptr, text.len);
    ret_baggage->text[text.len] = '\0';
    ret_baggage->len = (uint16_t)text.len;
    struct pug_baggage_member m = {0};
    while (pug_baggage_next(ret_baggage, &m))
        ret_baggage->n++;
    return ret_baggage->n;
}
