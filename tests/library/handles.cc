// pugmark.hpp as C++ programs use it; cpp_test.py looks at the trace it leaves. Prints what is not as it should be.
#include <pugmark/pugmark.hpp>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static int failed;

static void check(bool good, const char *what)
{
#ifdef PUG_DISABLE
    (void)good, (void)what; // there are no contexts then
#else
    if (!good) {
        std::printf("%s\n", what);
        failed++;
    }
#endif
}

enum class colour { red = 3 };

static void attributes()
{
    pug::span s = PUG_SPAN_START("attributes", PUG_STR("given", "at the start"), PUG_KIND(PUG_KIND_CLIENT));
    s.set("bool", true).set("int", 7).set("unsigned", 8u).set("long", -9L).set("enum", colour::red);
    s.set("float", 0.5f).set("double", 1.25);
    s.set("literal", "text").set("string", std::string("owned")).set("view", std::string_view("viewed", 4));
    s.name("attributes.renamed").status(PUG_STATUS_OK);
    pug_event(s.raw(), "event", PUG_INT("number", 1));
}

static void moves()
{
    std::vector<pug::span> open;
    for (int i = 0; i < 4; i++) // the vector moves them as it grows
        open.push_back(PUG_SPAN_START("moved", PUG_INT("i", i)));
    open[0] = std::move(open[1]); // ends the first, leaves the second's place empty
    check(!open[1].context(), "what was moved from is not none");
    open[1].set("lost", 1).end(); // goes nowhere
    open[2] = pug::span();
    pug::span last = std::move(open[3]);
    pug::span &same = last;
    last = std::move(same); // itself: still there
    check(bool(last.context()), "a span moved to itself is gone");
    std::thread([s = std::move(last)]() mutable {
        s.set("thread", "other");
        s.end();
        s.end();
    }).join();
}

static void contexts()
{
    std::map<std::string, std::string> headers;
    pug::span parent = PUG_SPAN_START("parent");
    {
        pug::attachment current(parent);
        PUG_SPAN("child.scope");
        pug::context here = pug::context::current();
        check(here.trace_id() == parent.context().trace_id(), "the scope is in another trace");
        check(here.sampled(), "it is not sampled");
        here.inject([&](const char *name, const char *value) { headers[name] = value; });
    }
    check(!pug::context::current(), "still attached");
    check(headers.count("traceparent") == 1, "no traceparent");
    auto get = [&](const char *name, std::size_t nth) -> const char * {
        auto found = headers.find(name);
        return nth == 0 && found != headers.end() ? found->second.c_str() : nullptr;
    };
    pug::context sender = pug::context::extract(get);
    check(sender.trace_id() == parent.context().trace_id(), "what was extracted is not what was injected");
    pug::context copy = sender, digits;
    digits = pug::context::from_hex(copy.trace_id().c_str(), copy.span_id().c_str());
    check(digits.span_id() == sender.span_id(), "hexadecimal there and back");
    check(!pug::context::from_hex("zz", "1"), "no digits, and yet a context");
    check(pug::context().trace_id().empty(), "none has a trace id");
    pug::context().inject([](const char *, const char *) { check(false, "none was injected"); });
    pug::span remote = PUG_SPAN_START_FROM(sender, "child.remote");
    remote.link(digits);
}

static void exceptions()
{
    try {
        pug::span thrown = PUG_SPAN_START("thrown");
        PUG_SPAN("thrown.scope");
        throw std::runtime_error("on purpose");
    } catch (const std::exception &) {
        PUG_SPAN("caught"); // no child of thrown.scope
        pug::span fine = PUG_SPAN_START("fine");
    }
    PUG_SPAN("failed");
    pug::span failed_span = PUG_SPAN_START("failed.span");
    failed_span.error("with words");
}

int main()
{
    pug_options options = pug::options();
    options.service_name = "handles";
    pug::session tracing(options);
    check(tracing.error() == 0, "tracing did not start");
    {
        pug::session second;
        check(second.error() == PUG_ERR_BUSY, "started twice");
    }
    attributes();
    moves();
    contexts();
    exceptions();
    check(tracing.flush(5000) == 0, "not flushed");
    return failed;
}
