#include "cli/term.h"

#include "base/clock.h"
#include "base/hash.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

enum { WIDTH_DEFAULT = 100, WIDTH_MIN = 40, WIDTH_MAX = 400 };

static bool locale_is_utf8;

struct term term_of(FILE *stream)
{
    struct term t = {.tty = isatty(fileno(stream)), .width = WIDTH_DEFAULT};
    setlocale(LC_CTYPE, "");
    locale_is_utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    t.utf8 = locale_is_utf8;
    const char *no_colour = getenv("NO_COLOR"), *kind = getenv("TERM");
    t.colour = t.tty && !(no_colour && *no_colour) && !(kind && !strcmp(kind, "dumb"));
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    uint64_t n;
    if (t.tty && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col)
        t.width = size.ws_col;
    else if (columns && str_to_u64(str_from(columns), &n) && n)
        t.width = n > WIDTH_MAX ? WIDTH_MAX : (unsigned)n;
    t.width = t.width < WIDTH_MIN ? WIDTH_MIN : t.width > WIDTH_MAX ? WIDTH_MAX : t.width;
    return t;
}

/* ---- text ---- */

struct glyph {
    const char *bytes;
    size_t n;
    size_t width;
};

/* The next character as it will be shown; `text` is moved past it. */
static struct glyph glyph_next(struct str *text)
{
    struct glyph g = {.bytes = locale_is_utf8 ? "\xc2\xb7" : "?", .width = 1};
    g.n = strlen(g.bytes);
    uint8_t c = (uint8_t)text->ptr[0];
    if (c >= 0x20 && c < 0x7f) {
        g.bytes = text->ptr;
        g.n = 1;
        *text = str_skip(*text, 1);
        return g;
    }
    size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    if (n == 1 || n > text->len || !str_is_utf8((struct str){text->ptr, n})) {
        *text = str_skip(*text, 1);
        return g;
    }
    struct str whole = {text->ptr, n};
    *text = str_skip(*text, n);
    if (!locale_is_utf8)
        return g;
    wchar_t wide;
    mbstate_t state = {0};
    int width = mbrtowc(&wide, whole.ptr, whole.len, &state) == n ? wcwidth(wide) : -1;
    /* The controls of C1, marks that turn the direction of writing, and what the C library does not
     * know have no width of 0 or more, or are format characters. */
    bool turns = width == 0 &&
                 ((wide >= 0x200b && wide <= 0x200f) || (wide >= 0x202a && wide <= 0x202e) ||
                  (wide >= 0x2066 && wide <= 0x2069) || wide == 0xfeff);
    if (width < 0 || turns)
        return g;
    g.bytes = whole.ptr;
    g.n = whole.len;
    g.width = (size_t)width;
    return g;
}

size_t term_width(struct str text)
{
    size_t width = 0;
    while (text.len)
        width += glyph_next(&text).width;
    return width;
}

size_t term_text(struct buf *out, struct str text, size_t width)
{
    bool cut = width != SIZE_MAX && term_width(text) > width;
    const char *ellipsis = locale_is_utf8 ? "\xe2\x80\xa6" : "~";
    size_t room = cut ? (width ? width - 1 : 0) : width, used = 0;
    while (text.len) {
        struct glyph g = glyph_next(&text);
        if (used + g.width > room)
            break;
        buf_put(out, g.bytes, g.n);
        used += g.width;
    }
    if (cut && width) {
        buf_cstr(out, ellipsis);
        used++;
    }
    return used;
}

void term_blanks(struct buf *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_byte(out, ' ');
}

void term_cell(struct buf *out, struct str text, size_t width)
{
    size_t used = term_text(out, text, width);
    term_blanks(out, width - used);
}

/* ---- numbers ---- */

const char *term_duration(char out[TERM_DURATION_SIZE], uint64_t ns)
{
    static const struct {
        uint64_t ns;
        const char *unit;
    } units[] = {{NS_PER_S, "s"}, {NS_PER_MS, "ms"}, {NS_PER_US, "us"}, {1, "ns"}};
    if (ns >= 120 * NS_PER_S) {
        uint64_t s = ns / NS_PER_S;
        if (s < 7200)
            snprintf(out, TERM_DURATION_SIZE, "%llu min %llu s", (unsigned long long)(s / 60),
                     (unsigned long long)(s % 60));
        else
            snprintf(out, TERM_DURATION_SIZE, "%llu h %llu min", (unsigned long long)(s / 3600),
                     (unsigned long long)(s / 60 % 60));
        return out;
    }
    size_t i = 0;
    while (i < 3 && ns < units[i].ns)
        i++;
    double n = (double)ns / (double)units[i].ns;
    const char *unit = i == 2 && locale_is_utf8 ? "\xc2\xb5s" : units[i].unit;
    if (i == 3 || n >= 99.95)
        snprintf(out, TERM_DURATION_SIZE, "%.0f %s", n, unit);
    else
        snprintf(out, TERM_DURATION_SIZE, n >= 9.995 ? "%.1f %s" : "%.2f %s", n, unit);
    return out;
}

const char *term_time(char out[TERM_TIME_SIZE], uint64_t epoch_ns, bool whole)
{
    time_t seconds = (time_t)(epoch_ns / NS_PER_S), now = time(NULL);
    struct tm parts, today;
    localtime_r(&seconds, &parts);
    localtime_r(&now, &today);
    bool same = parts.tm_year == today.tm_year && parts.tm_yday == today.tm_yday;
    char date[16] = "", zone[8] = "";
    if (whole || !same)
        strftime(date, sizeof date, "%Y-%m-%d ", &parts);
    if (whole)
        strftime(zone, sizeof zone, " %z", &parts);
    snprintf(out, TERM_TIME_SIZE, "%s%02d:%02d:%02d.%03u%s", date, parts.tm_hour, parts.tm_min,
             parts.tm_sec, (unsigned)(epoch_ns % NS_PER_S / NS_PER_MS), zone);
    return out;
}

/* ---- colours ---- */

const char *term_style(const struct term *t, enum term_style style)
{
    static const char *const sequences[] = {"\x1b[0m", "\x1b[2m", "\x1b[1m", "\x1b[1;31m"};
    return t->colour ? sequences[style] : "";
}

const char *term_service_style(const struct term *t, struct str service, char out[16])
{
    /* Legible on dark and on light; no red, which means error. */
    static const unsigned char palette[] = {33,  35,  36,  37,  63,  68,  71,  73,  97,  99,
                                            103, 107, 133, 136, 137, 139, 142, 172, 178, 74};
    if (!t->colour)
        return "";
    snprintf(out, 16, "\x1b[38;5;%um", palette[hash_str(service) % sizeof palette]);
    return out;
}
