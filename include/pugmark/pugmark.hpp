// Pugmark for C++17: the handles of pugmark.h as objects that end by themselves.
//
//     #include <pugmark/pugmark.hpp>                   // link with -lpugmark
//
//     int main()
//     {
//         pug::session tracing;                        // pug_start .. pug_stop
//         PUG_SPAN("work");                            // scopes are those of pugmark.h
//         pug::span request = PUG_SPAN_START("http.request", PUG_STR("path", path));
//         request.set("status", 200);
//         queue.push([request = std::move(request)]() mutable { request.end(); });
//     }
//
// PUG_SPAN, PUG_FN and the rest of pugmark.h are used in C++ as they are; a scope also ends when an
// exception leaves it. What is here adds owners: a span, an attachment and a session end once, at
// the latest in their destructor, whoever holds them then. Nothing here throws or allocates but the
// functions that return std::string.
//
// Threads, signals and limits are those of the functions of pugmark.h that are called: a span may be
// used and ended on any thread, by one at a time; an attachment belongs to the thread and the scope
// that made it. Nothing here but spans may be used in a signal handler.
//
// With PUG_DISABLE the classes stay, empty, and their calls compile to nothing.
#ifndef PUGMARK_PUGMARK_HPP
#define PUGMARK_PUGMARK_HPP

#include <pugmark/pugmark.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#if __cplusplus < 201703L
#error "pugmark.hpp is C++17; pugmark.h is also C++11"
#endif

namespace pug {

// A place in a trace: a value, to be copied freely. A default one is none.
class context {
public:
    context() noexcept = default;
    explicit context(const pug_context &c) noexcept { assign(c); }
    context(const context &other) noexcept { assign(other.raw_); }
    context &operator=(const context &other) noexcept
    {
        if (this != &other)
            assign(other.raw_);
        return *this;
    }

    // Of the innermost scope of this thread.
    [[nodiscard]] static context current() noexcept { return context(pug_context_current()); }
    // From 32 and 16 hexadecimal digits, as they stand in a database or a log; none if they are not.
    [[nodiscard]] static context from_hex(const char *trace_id, const char *span_id) noexcept
    {
        pug_context c;
        return pug_context_from_hex(&c, trace_id, span_id) == 0 ? context(c) : context();
    }
    // What a sender put into its headers. `get(name, nth)` returns the value of the nth header of
    // that name (from 0, without regard to case) as something a const char * can be had from, NULL
    // or nullptr for "no such header". An exception out of it ends the program.
    template <class Get> [[nodiscard]] static context extract(Get &&get) noexcept
    {
        pug_context c;
        using function = std::remove_reference_t<Get>;
        pug_carrier_get *call = [](void *carrier, const char *name, std::size_t nth,
                                   std::size_t *ret_len) noexcept -> const char * {
            (void)ret_len; // terminated
            return (*static_cast<function *>(carrier))(name, nth);
        };
        return pug_extract(call, const_cast<void *>(static_cast<const void *>(&get)), &c) == 1
                   ? context(c)
                   : context();
    }

    // Calls `set(name, value)`, both const char *, for each header that carries this context; does
    // nothing when it is none. An exception out of `set` ends the program.
    template <class Set> void inject(Set &&set) const noexcept
    {
        if (!*this) // NULL or none would be the current one
            return;
        using function = std::remove_reference_t<Set>;
        pug_carrier_set *call = [](void *carrier, const char *name, const char *value) noexcept {
            (*static_cast<function *>(carrier))(name, value);
        };
        pug_inject(&raw_, call, const_cast<void *>(static_cast<const void *>(&set)));
    }

    [[nodiscard]] explicit operator bool() const noexcept { return pug_context_valid(&raw_) != 0; }
    // Lower-case digits; "" when there is none.
    [[nodiscard]] std::string trace_id() const
    {
        char hex[33];
        pug_trace_id_hex(&raw_, hex);
        return hex;
    }
    [[nodiscard]] std::string span_id() const
    {
        char hex[17];
        pug_span_id_hex(&raw_, hex);
        return hex;
    }
    [[nodiscard]] bool sampled() const noexcept { return *this && (raw_.flags & PUG_FLAG_SAMPLED); }
    [[nodiscard]] const pug_context *raw() const noexcept { return &raw_; }

private:
    // Only as much of the tracestate as there is.
    void assign(const pug_context &c) noexcept
    {
#ifndef PUG_DISABLE
        std::memcpy(&raw_, &c, offsetof(pug_context, tracestate));
        if (raw_.tracestate_len > PUG_TRACESTATE_MAX)
            raw_.tracestate_len = 0;
        std::memcpy(raw_.tracestate, c.tracestate, raw_.tracestate_len);
#else
        (void)c;
#endif
    }

    pug_context raw_ = {};
};

// A span that ends elsewhere: once, by end(), or by the destructor of whoever holds it then. If that
// destructor runs because of an exception, the span's status says so. A default one, and one that was
// moved from, is none: what is said to it goes nowhere. PUG_SPAN_START makes one.
class span {
public:
#ifndef PUG_DISABLE
    span() noexcept
    {
        pug__span_none(&raw_);
    }
    span(span &&other) noexcept : exceptions_(other.exceptions_)
    {
        take(other);
    }
    span &operator=(span &&other) noexcept
    {
        if (this != &other) {
            pug_span_end(&raw_);
            exceptions_ = other.exceptions_;
            take(other);
        }
        return *this;
    }
    ~span()
    {
        if (std::uncaught_exceptions() > exceptions_)
            pug_error(&raw_, "left by an exception");
        pug_span_end(&raw_);
    }
    [[nodiscard]] pug::context context() const noexcept
    {
        return pug::context(raw_.context);
    }
#else
    span() noexcept = default;
    span(span &&) noexcept
    {
    }
    span &operator=(span &&) noexcept
    {
        return *this;
    }
    ~span()
    {
    }
    [[nodiscard]] pug::context context() const noexcept
    {
        return {};
    }
#endif
    span(const span &) = delete;
    span &operator=(const span &) = delete;

    // Ends it now. A second end does nothing.
    void end() noexcept
    {
        pug_span_end(&raw_);
    }

    // Attributes, as pug_set_*. `key` and text are copied, at most PUG_STR_MAX bytes.
    template <class T> span &set(const char *key, const T &value) noexcept
    {
        if constexpr (std::is_same_v<T, bool>) {
            pug_set_bool(&raw_, key, value);
        } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
            pug_set_int(&raw_, key, static_cast<std::int64_t>(value));
        } else if constexpr (std::is_floating_point_v<T>) {
            pug_set_double(&raw_, key, static_cast<double>(value));
        } else {
            std::string_view text = value;
            pug_set_strn(&raw_, key, text.data(), text.size());
            (void)text; // with PUG_DISABLE
        }
        return *this;
    }
    span &name(const char *better) noexcept
    {
        pug_set_name(&raw_, better);
        return *this;
    }
    span &status(pug_status_code code, const char *message = nullptr) noexcept
    {
        pug_status(&raw_, code, message);
        return *this;
    }
    span &error(const char *message) noexcept
    {
        pug_error(&raw_, message);
        return *this;
    }
    span &link(const pug::context &to) noexcept
    {
        pug_link(&raw_, to.raw());
        return *this;
    }
    // For the C functions and pug_event(request.raw(), "name", ...). Stays the owner's to end.
    [[nodiscard]] pug_span *raw() noexcept
    {
        return &raw_;
    }

private:
#ifndef PUG_DISABLE
    void take(span &other) noexcept
    {
        const pug_context &from = other.raw_.context;
        std::size_t n = from.tracestate_len <= PUG_TRACESTATE_MAX ? from.tracestate_len : 0;
        std::memcpy(static_cast<void *>(&raw_), &other.raw_, offsetof(pug_context, tracestate) + n);
        raw_.context.tracestate_len = static_cast<std::uint16_t>(n);
        std::memcpy(raw_.parent_id, other.raw_.parent_id, sizeof raw_.parent_id);
        raw_.pug__start = other.raw_.pug__start;
        raw_.pug__site = other.raw_.pug__site;
        raw_.pug__state = other.raw_.pug__state;
        pug__span_none(&other.raw_);
    }
    int exceptions_ = std::uncaught_exceptions();
#endif
    pug_span raw_;
};

// Makes a context, or a span that is open elsewhere, the current one of this thread until its scope
// ends: PUG_ATTACH as an object.
class attachment {
public:
    explicit attachment(const context &c) noexcept : raw_(pug_context_attach(c.raw())) {}
    explicit attachment(const span &s) noexcept : attachment(s.context()) {}
    ~attachment() { pug_context_detach(raw_); }
    attachment(const attachment &) = delete;
    attachment &operator=(const attachment &) = delete;

private:
    pug_attachment raw_;
};

// Options with `size` set.
[[nodiscard]] inline pug_options options() noexcept
{
    pug_options o = {};
    o.size = sizeof o;
    return o;
}

// pug_start and pug_stop. One that found tracing started already leaves it running at its end.
class session {
public:
    explicit session(const pug_options *o = nullptr) noexcept : error_(pug_start(o)) { (void)o; }
    explicit session(const pug_options &o) noexcept : session(&o) {}
    ~session()
    {
        if (error_ == 0)
            (void)pug_stop();
    }
    session(const session &) = delete;
    session &operator=(const session &) = delete;

    // 0, or why tracing is off: a PUG_ERR_ code of pug_start.
    [[nodiscard]] int error() const noexcept { return error_; }
    // pug_flush
    int flush(unsigned timeout_ms) noexcept { return pug_flush(timeout_ms); }

private:
    int error_;
};

} // namespace pug

// A pug::span: PUG_SPAN_START("name", attributes), child of what is current;
// PUG_SPAN_START_FROM(context, "name", attributes), child of a pug::context.
#define PUG_SPAN_START(...)                                                                        \
    __extension__({                                                                                \
        ::pug::span pug__new;                                                                      \
        pug_span_start(pug__new.raw(), __VA_ARGS__);                                               \
        ::std::move(pug__new);                                                                     \
    })
#define PUG_SPAN_START_FROM(context_, ...)                                                         \
    __extension__({                                                                                \
        ::pug::span pug__new;                                                                      \
        pug_span_start_from(pug__new.raw(), (context_).raw(), __VA_ARGS__);                        \
        ::std::move(pug__new);                                                                     \
    })

#endif
