// What the tests of Prometheus's API share: a fixed system of services over an hour, and what is asked about it.

export const T0 = 1_767_323_040; // 2026-01-02T03:04:00Z, in seconds: a multiple of 15
export const INTERVAL = 15;

/** Numbers that are the same in every run. */
function random(seed) {
  let x = seed >>> 0;
  return () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return x / 2 ** 32;
  };
}

const OPERATIONS = [
  ['front', 'GET /', 2, 0.9], ['front', 'GET /cart', 2, 0.4], ['front', 'call', 3, 0.5],
  ['cart', 'load', 2, 0.5], ['cart', 'SELECT', 3, 0.4], ['pay "x"\\', 'charge é', 5, 0.1],
];

/** Spans of an hour: {service, name, kind, status, startMs (from T0), durationUs}. One service begins late. */
export function spansOfAnHour() {
  const next = random(20260102);
  const spans = [];
  for (let s = 0; s < 3600; s += 5) {
    for (const [service, name, kind, often] of OPERATIONS) {
      if (service.startsWith('pay') && s < 1800) continue;
      if (next() > often * (s > 2400 ? 0.5 : 1)) continue;
      spans.push({ service, name, kind, status: next() < 0.1 ? 2 : next() < 0.2 ? 1 : 0,
        startMs: s * 1000 + Math.floor(next() * 5000), durationUs: Math.floor(Math.exp(next() * 12)) * 10 });
    }
  }
  // At once on a sample and beside it.
  for (const startMs of [900_000, 899_999, 900_001]) spans.push({ service: 'cart', name: 'load', kind: 2, status: 0, startMs, durationUs: 2000 });
  return spans;
}

/** As OTLP has it. */
export function otlpOf(spans) {
  const services = new Map();
  spans.forEach((span, i) => {
    const start = BigInt(T0) * 1_000_000_000n + BigInt(span.startMs) * 1_000_000n;
    if (!services.has(span.service)) services.set(span.service, []);
    services.get(span.service).push({
      traceId: (i + 1).toString(16).padStart(32, '0'), spanId: (i + 1).toString(16).padStart(16, '0'),
      name: span.name, kind: span.kind, status: { code: span.status },
      startTimeUnixNano: String(start), endTimeUnixNano: String(start + BigInt(span.durationUs) * 1000n),
    });
  });
  return { resourceSpans: [...services].map(([service, list]) => ({
    resource: { attributes: [{ key: 'service.name', value: { stringValue: service } }] },
    scopeSpans: [{ spans: list }],
  })) };
}

const C = 'traces_spanmetrics_calls_total';
// No two are equal: which of equals topk takes is not said.
const L = 'traces_spanmetrics_latency_sum';
const B = 'traces_spanmetrics_latency_bucket';

/** What is understood; each is asked of Prometheus too. */
export const ACCEPTED = [
  C, `${C}{service="front"}`, `${C}{service!="front"}`, `${C}{service=~"fr.*|cart"}`, `${C}{service!~"fr.*"}`,
  `{__name__=~"traces_spanmetrics_calls.*", span_kind="SPAN_KIND_SERVER"}`, `{__name__="${C}",service="cart",}`,
  `${C}{service="pay \\"x\\"\\\\"}`, `${C}{service='pay "x"\\\\'}`, `${C}{span_name="charge \\u00e9"}`, `${C}{nothing=""}`,
  `${C}{status_code=~"STATUS_CODE_(OK|ERROR)"} # with words behind`, `${C} offset 5m`, `${C} offset -1m`, `${C} @ ${T0 + 1000}`,
  `${C} @ ${T0 + 1000} offset 2m`, `${C} offset 2m @ ${T0 + 1000.5}`, `${C} @ end()`, `${C} @ start()`,
  `rate(${C}[5m])`, `rate(${C}[1m])`, `rate(${C}[30s])`, `rate(${C}[20s])`, `rate(${C}[1h])`, `rate(${C}[1h30m])`, `increase(${C}[5m])`,
  `increase(${C}[7m13s] offset 90s)`, `irate(${C}[5m])`, `delta(${C}[5m])`, `idelta(${C}[5m])`, `deriv(${C}[10m])`,
  `rate(${C}[5m] @ ${T0 + 2000})`, `rate(${C}[5m] @ end())`, `predict_linear(${C}[10m], 600)`, `changes(${C}[10m])`, `resets(${C}[10m])`,
  `avg_over_time(${C}[5m])`, `sum_over_time(${C}[5m])`, `min_over_time(${C}[5m])`, `max_over_time(${C}[5m])`,
  `count_over_time(${C}[5m])`, `last_over_time(${C}[5m])`, `present_over_time(${C}[5m])`, `stddev_over_time(${C}[5m])`,
  `stdvar_over_time(${C}[5m])`, `quantile_over_time(0.7, ${C}[5m])`, `absent_over_time(${C}{service="no"}[5m])`, `absent(${C}{service="no"})`,
  `absent(${C})`, `sum(rate(${C}[5m]))`, `sum by (service) (rate(${C}[5m]))`, `sum(rate(${C}[5m])) by (service, span_kind)`,
  `sum without (span_name) (rate(${C}[5m]))`, `avg by (service) (${C})`, `min by (service) (${C})`, `max by (service) (${C})`,
  `count by (service) (${C})`, `group by (service) (${C})`, `stddev by (service) (${C})`, `stdvar(${C})`, `quantile by (service) (0.9, ${C})`,
  `topk(3, ${L} > 0)`, `topk by (service) (1, ${L} > 0)`, `bottomk(2, ${L} > 0)`, `count_values("n", ${C})`,
  `count_values by (service) ("n", round(rate(${C}[5m]), 0.01))`, `SUM BY (service) (${C})`, `sum by () (${C})`,
  `histogram_quantile(0.901, sum by (le) (rate(${B}[5m])))`, `histogram_quantile(0.531, sum by (service, le) (rate(${B}[5m])))`,
  `histogram_quantile(0.991, rate(${B}{service="front"}[10m]))`, `histogram_quantile(1.5, ${B})`, `histogram_quantile(0, ${B})`,
  `traces_spanmetrics_latency_sum / traces_spanmetrics_latency_count`,
  `rate(traces_spanmetrics_latency_sum[5m]) / rate(traces_spanmetrics_latency_count[5m])`,
  `${C} + 1`, `1 + ${C}`, `${C} * 2 - 3`, `${C} % 7`, `2 ^ 3 ^ 2`, `-2 ^ 2`, `-${C}`, `+${C}`, `${C} ^ 0.5`, `10 / 4`, `1 / 0`, `0 / 0`, `7 % 4`, `1e3`, `0x1F`, `.5`,
  `${C} > 20`, `${C} > bool 20`, `20 < ${C}`, `1 > bool 2`, `${C} == ${C}`, `${C} != ${C}`, `${C} >= bool ${C}`, `2 * 3 + 4 * 5`, `(1 + 2) * 3`,
  `${C}{status_code="STATUS_CODE_ERROR"} / ignoring(status_code) ${C}{status_code="STATUS_CODE_UNSET"}`,
  `${C}{status_code="STATUS_CODE_ERROR"} / on(service, span_name, span_kind) ${C}{status_code="STATUS_CODE_UNSET"}`,
  `${C} / on(service) group_left sum by (service) (${C})`, `${C} / on(service) group_left(span_kind) sum by (service) (${C})`,
  `sum by (service) (${C}) / on(service) group_right ${C}`, `${C} / ignoring(status_code) group_left() sum without (status_code) (${C})`,
  `sum(rate(${C}{status_code="STATUS_CODE_ERROR"}[5m])) by (service) / sum(rate(${C}[5m])) by (service) > 0.05`,
  `${C} and ${C}{service="front"}`, `${C} or vector(1)`, `${C} unless ${C}{service="front"}`, `${C} and on(service) ${C}{span_kind="SPAN_KIND_CLIENT"}`,
  `${C}{service="no"} or ${C}{service="cart"}`, `${C} or on(service) ${C}`, `${C} unless on(span_kind) ${C}{service="cart"}`,
  `sum(${C}) or sum(${C}{service="no"})`, `abs(-${C})`, `ceil(rate(${C}[5m]) * 10)`, `floor(${C} / 7)`, `round(${C} / 7)`, `round(${C} / 7, 0.25)`,
  `clamp(${C}, 10, 20)`, `clamp_min(${C}, 10)`, `clamp_max(${C}, 10)`, `clamp(${C}, 20, 10)`, `exp(rate(${C}[5m]))`, `ln(${C})`, `log2(${C})`, `log10(${C})`,
  `sqrt(${C})`, `sgn(${C} - 20)`, `sin(${C})`, `deg(rad(${C}))`, `atan(${C})`, `sum(${C}) atan2 sum(${B})`, `pi()`, `time()`, `vector(time())`, `scalar(sum(${C}))`, `scalar(${C})`,
  `minute()`, `hour()`, `month()`, `year()`, `day_of_month()`, `day_of_week()`, `day_of_year()`, `days_in_month()`, `hour(vector(0))`, `timestamp(${C})`, `timestamp(vector(1))`,
  `label_replace(${C}, "short", "$1", "span_kind", "SPAN_KIND_(.*)")`, `label_replace(${C}, "service", "${'$'}{1}-x", "service", "(fr)(?:on)t")`,
  `label_replace(${C}, "a", "$2", "span_kind", "(?:SPAN)_(KIND)_(?P<what>[A-Z]+)")`, `label_replace(${C}, "a", "x", "nothing", "")`,
  `label_replace(${C}, "a", "$1|$2", "span_name", "(.*?)(A|AL|[a-z]*)(.*)")`, `label_join(${C}, "both", "/", "service", "span_name")`, `label_join(${C}, "service", "")`, `sort(${C})`, `sort_desc(${C})`,
  `max_over_time(rate(${C}[1m7s])[10m:30s])`, `avg_over_time(sum(${C})[5m:])`, `rate(sum(${C})[10m:1m])`, `sum_over_time((${C} > 10)[10m:45s] offset 1m)`,
  `count_over_time(${C}[5m:20s])`, `rate(${C}[5m:15s] @ ${T0 + 1500.5})`, `sum(sum_over_time(vector(1)[5m:1m]))`,
  `sum by (le) (${B})`, `${B}{le="0.008"}`, `${B}{le=~"0.0.*"}`, `${B}{le="+Inf"} - ignoring(le) traces_spanmetrics_latency_count`,
  // What Grafana's service graph asks.
  'sum by (client, server) (rate(traces_service_graph_request_total[1h]))', 'sum by (client, server) (rate(traces_service_graph_request_failed_total[1h]))',
  'sum by (client, server) (rate(traces_service_graph_request_server_seconds_sum[1h]))', 'traces_service_graph_request_client_seconds_count',
  'histogram_quantile(.901, sum(rate(traces_service_graph_request_server_seconds_bucket{server=~"front|cart"}[1h])) by (le, client, server))',
  'sum(rate(traces_spanmetrics_calls_total{span_kind="SPAN_KIND_SERVER"}[1h])) by (span_name)', 'traces_service_graph_request_total{connection_type="virtual_node"}',
  'histogram_quantile(.901, sum(rate(traces_spanmetrics_latency_bucket{span_name=~"GET /|load"}[1h])) by (le))',
  `traces_span_metrics_calls_total`, `rate(traces_span_metrics_duration_milliseconds_bucket{le="50"}[5m])`, `traces_span_metrics_duration_milliseconds_sum`,
  `sum({__name__=~"traces_span.*_total"}) by (__name__)`, `"a text"`, `no_such_metric`, `rate(no_such_metric[5m])`, `sum(no_such_metric)`,
];

/** What is refused where it stands. */
export const REFUSED = [
  '', ' ', '(', ')', '{}', '{service=~".*"}', '{service!="x"}', 'a{', 'a{b}', 'a{b=}', 'a{b=c}', 'a{b="c"', 'a{b="c" d="e"}', 'a{,}', 'a{"b"="c"', 'a{b=~"("}',
  'a{__name__="b"}', 'a b', 'a[5m] b', 'a[]', 'a[0s]', 'a[5]m', 'a[5x]', 'a[5m', 'a[5m][5m]', 'sum(a)[5m]', '1[5m]', '(a)[5m]', 'a offset', 'a offset x', 'a offset 5q', 'a offset 5m offset 5m', '1 offset 5m',
  'a @', 'a @ b', 'a @ 1 @ 2', '1 @ 5', 'sum(a) offset 5m', '1 +', '* 1', '1 == 1', '1 > 2', '1 and 2', 'a and 1', '1 or a', 'a + bool a', '1 + on(b) 2', 'a + on(b) 1', 'a and on(b) group_left a',
  'a + on(b) group_left(b) a', 'a + on(1) a', 'sum by (a)', 'sum()', 'sum(1)', 'sum(a, a)', 'sum(a[5m])', 'topk(a)', 'topk(a, a)', 'quantile("x", a)', 'count_values(1, a)', 'sum by (a) by (b) (c)', 'sum by a (b)',
  'rate(a)', 'rate(1)', 'rate(a[5m], 1)', 'rate()', 'abs(a[5m])', 'abs("a")', 'abs(1)', 'nothing(a)', 'round(a, "x")', 'time(1)', 'vector(a)', 'scalar(1)', 'histogram_quantile(a, 1)', 'label_replace(a, "b", "c", "d")',
  'label_join(a)', '-"a"', '-a[5m]', '"a" + 1', 'a[5m] + 1', '"unclosed', "'a\n'", '"\\q"', '1.2.3', '0x', '5mm', '1h1h', 'a[5m:0s]', 'a[5m:1m:1m]', '1[5m:1m]', 'a == bool', 'a on(b) c', 'a !! b', 'a = b', 'a ! b', '$a', 'a;b',
];
