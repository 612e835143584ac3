// What to see before the first span has come: how to send one.

import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import * as api from '../api';
import { Command } from '../parts';

export function FirstSpan(): JSX.Element {
  const [endpoints, setEndpoints] = useState<Record<string, string>>({});
  useEffect(() => {
    const abort = new AbortController();
    api.status(abort.signal).then((s) => setEndpoints(s.endpoints ?? {})).catch(() => {});
    return () => abort.abort();
  }, []);
  const http = endpoints.otlp_http ?? 'http://127.0.0.1:4318';
  const grpc = endpoints.otlp_grpc ?? 'http://127.0.0.1:4317';
  const curl = `curl ${http}/v1/traces -H 'content-type: application/json' -d '{"resourceSpans":[
  {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"hello"}}]},
   "scopeSpans":[{"spans":[{"name":"first span","kind":1,
    "traceId":"'$(openssl rand -hex 16)'","spanId":"'$(openssl rand -hex 8)'",
    "startTimeUnixNano":"'$(date +%s%N)'","endTimeUnixNano":"'$(date +%s%N -d +1sec)'"}]}]}]}'`;
  const program = `#include <pugmark/pugmark.h>

int main(void)
{
    pug_start(NULL);
    { PUG_SPAN("first span", PUG_STR("from", "hello.c")); }
    pug_stop();
}`;
  const build = `cc hello.c $(pkg-config --cflags --libs pugmark) -o hello
PUG_TRACING=true PUG_BACKEND=otlp PUG_OTLP_ENDPOINT=${http} ./hello`;
  return (
    <div class="first">
      <h2>No span has come yet</h2>
      <p class="muted">
        <span class="pulse" aria-hidden="true" /> Listening for OTLP at <code>{http}</code> (HTTP) and <code>{grpc}</code> (gRPC). This page
        shows the first trace when it comes.
      </p>
      <div class="ways">
        <section>
          <h3>A program with OpenTelemetry, in any language</h3>
          <Command label="environment" text={`export OTEL_EXPORTER_OTLP_ENDPOINT=${http}\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`} />
          <h3>A C program with libpugmark</h3>
          <Command label="program" text={program} />
          <Command label="commands" text={build} />
        </section>
        <section>
          <h3>Made-up traffic</h3>
          <Command label="command" text={`pugmark load --otlp ${http} --traces 100`} />
          <h3>One span, by hand</h3>
          <Command label="command" text={curl} />
        </section>
      </div>
    </div>
  );
}
