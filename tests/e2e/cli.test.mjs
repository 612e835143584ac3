// pugmark query and pugmark trace, as a person or a script runs them.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { PUGMARK, Server, otlpRequest } from './lib.mjs';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const now = BigInt(Date.now()) * 1_000_000n;
const request = otlpRequest('shop', [
  { traceId: TRACE, spanId: 'a000000000000001', name: 'GET /cart', startTimeUnixNano: String(now - 100_000_000n), endTimeUnixNano: String(now) },
  {
    traceId: TRACE, spanId: 'a000000000000002', parentSpanId: 'a000000000000001', name: 'load, "quoted"\n\u001b[31mred',
    startTimeUnixNano: String(now - 50_000_000n), endTimeUnixNano: String(now - 25_000_000n),
    status: { code: 2, message: 'no\u0007 answer' }, attributes: [
      { key: 'attempt', value: { intValue: '3' } },
      { key: 'tags', value: { arrayValue: { values: [{ stringValue: 'a "b"' }, { intValue: '7' }, { boolValue: true }] } } },
      { key: 'none', value: { arrayValue: {} } }],
  },
]);

let server;
let scratch;
before(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-cli-'));
  server = await Server.start();
  await server.send(request);
  await server.send(otlpRequest('old', [{ name: 'long ago, "x"', startTimeUnixNano: '1767323045000000000', endTimeUnixNano: '1767323045000000700' }]));
});
after(async () => {
  await server.stop();
  await rm(scratch, { recursive: true, force: true });
});

/** Runs it; without a terminal, in UTF-8 unless told otherwise. */
const run = (args, env = {}) => new Promise((resolve) => {
  execFile(PUGMARK, args, { env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC', COLUMNS: '90', ...env } },
    (error, stdout, stderr) => resolve({ status: error ? error.code : 0, stdout, stderr }));
});
const ask = (...args) => run([...args, '--server', server.endpoints.page]);

describe('pugmark query', () => {
  test('lists what matches in a table', async () => {
    const { status, stdout, stderr } = await ask('query', '{ status = error }');
    assert.equal(status, 0, stderr);
    const [head, row, ...rest] = stdout.split('\n');
    assert.match(head, /^START +DURATION +SERVICE +ROOT +SPANS +ERRORS +TRACE$/);
    assert.match(row, new RegExp(`^[0-9-]* ?\\d\\d:\\d\\d:\\d\\d\\.\\d{3} +100 ms +shop +GET /cart +2 +1 +${TRACE}$`));
    assert.deepEqual(rest, ['']);
    assert.equal(stderr, '');
  });

  test('looks back as far as it is told', async () => {
    assert.equal((await ask('query', '{ name =~ "long ago.*" }')).stdout, '');
    const { stdout } = await ask('query', '{ name =~ "long ago.*" }', '--since', '36500d', '--csv');
    const [head, row] = stdout.split('\n');
    assert.equal(head, 'start,duration_ns,service,name,spans,errors,orphans,matched,trace_id');
    assert.match(row, /^2026-01-02T03:04:05\.000000000Z,700,old,"long ago, ""x""",1,0,0,1,[0-9a-f]{32}$/);
  });

  test('says so when nothing matches, or more does', async () => {
    const none = await ask('query', '{ name = "nothing" }');
    assert.deepEqual([none.status, none.stdout], [0, '']);
    assert.match(none.stderr, /No trace matches in the last 1h/);
    const more = await ask('query', '{}', '--limit', '1', '--since', '36500d');
    assert.match(more.stderr, /There are more/);
    const next = await ask('query', '{}', '--limit', '1', '--cursor', more.stderr.match(/--cursor (\w+)/)[1], '--csv');
    assert.match(next.stdout.split('\n')[1], /,old,/);
    assert.equal(next.stderr, '');
    assert.match((await ask('query', '{}', '--cursor', 'abc')).stderr, /no cursor of an answer to this search/);
  });

  test('gives machines the answer of the server', async () => {
    const { stdout } = await ask('query', '{}', '--json', '--limit', '5');
    assert.equal(JSON.parse(stdout).traces[0].traceId, TRACE);
    const explained = await ask('query', '{}', '--explain');
    assert.match(explained.stderr, /^Read to find them: parts \d+, /m);
    assert.match(explained.stderr, /^Plan: the columns are asked for true; each span found is an answer\.$/m);
    const structure = await ask('query', '{ name = "GET /cart" } > { status = error }', '--explain');
    assert.match(structure.stderr, /^Plan: the columns are asked for name = "GET \/cart" \| status = error; what is asked of traces is decided there\.$/m);
    const counted = await ask('query', '{ status = error } | avg(duration) > 1ns', '--explain');
    assert.match(counted.stderr, /^Plan: the columns are asked for status = error; traces found are read whole, for aggregates or groups\.$/m);
    const named = await ask('query', `{ trace:id = "${TRACE}" }`, '--explain');
    assert.match(named.stderr, /^Plan: the query names its trace, which is read whole\.$/m);
  });

  test('follows structure, and counts in pipelines', async () => {
    const { stdout } = await ask('query', '{ name = "GET /cart" } > { status = error } | count() = 1', '--csv');
    assert.match(stdout.split('\n')[1], new RegExp(`,shop,GET /cart,2,1,0,1,${TRACE}$`));
    assert.equal((await ask('query', '{ status = error } >> { }')).stdout, '');
  });

  test('shows spans with what is selected, and groups', async () => {
    const selected = await ask('query', '{ status = error } | select(.attempt, kind, .no)');
    assert.match(selected.stdout, new RegExp(`^START +DURATION +SERVICE +NAME +\\.attempt +kind +\\.no +TRACE\n`
      + `\\S+ +25\\.0 ms +shop +load, "quoted".*\\[31mred +3 +internal +${TRACE}\n$`));
    assert.ok(!/[\u001b\u0007]/.test(selected.stdout));
    const csv = await ask('query', '{ } | by(status) | select(.attempt)', '--csv');
    assert.deepEqual(csv.stdout.trim().split('\n').map((l) => l.replace(/^[^,]*,/, '')).map((l) => l.slice(0, 20)).slice(0, 2),
      ['duration_ns,service,', '100000000,shop,GET /']);
    assert.match(csv.stdout, /^start,duration_ns,service,name,by\(status\),\.attempt,trace_id\n/);
    const groups = await ask('query', '{ } | by(status) | count() > 0');
    assert.match(groups.stdout, new RegExp(`^MATCHED +by\\(status\\) +count\\(\\) +TRACE\n +1 +unset +1 +${TRACE}\n +1 +error +1 +${TRACE}\n$`));
    assert.equal((await ask('query', '{ } | by(name)', '--spans', '1', '--limit', '1')).status, 0);
  });

  test('shows lists and durations as a person reads them, and to scripts as they are', async () => {
    const query = '{ } | by(rootName) | avg(duration) > 1ns | select(.tags, .none, duration)';
    const table = await ask('query', query);
    assert.match(table.stdout, /by\(rootName\) +avg\(duration\) +\.tags +\.none +duration +TRACE\n/);
    assert.match(table.stdout, / 62\.5 ms +\[a "b", 7, true\] +\[\] +25\.0 ms /);
    const csv = (await ask('query', query, '--csv')).stdout;
    assert.match(csv, /,62500000,"\{""values"":\[.*,25000000,/);
  });

  test('shows series, draws them, and gives them to scripts', async () => {
    const query = '{ } | count_over_time() by (resource.service.name)';
    const { status, stdout, stderr } = await ask('query', query);
    assert.equal(status, 0, stderr);
    const [head, row, end] = stdout.split('\n');
    assert.match(head, /^SERIES +MIN +MAX +LAST$/);
    assert.match(row, /^\{resource\.service\.name="shop"\} +0 +2 +[02] {2}[▁▂▃▄▅▆▇█]+$/);
    assert.equal(end, '');
    const csv = await ask('query', query, '--csv', '--step', '10m');
    const lines = csv.stdout.trim().split('\n');
    assert.equal(lines[0], 'time,series,value');
    assert.match(lines[1], /^2\d{3}-\d\d-\d\dT\d\d:\d0:00\.000000000Z,"\{resource\.service\.name=""shop""\}",0$/);
    assert.equal(lines.slice(1).reduce((sum, line) => sum + Number(line.split(',').at(-1)), 0), 2);
    const answer = JSON.parse((await ask('query', '{ } | quantile_over_time(duration, 1)', '--json')).stdout);
    assert.deepEqual(answer.series[0].labels, [{ key: 'p', value: { doubleValue: 1 } }]);
    assert.ok(answer.series[0].samples.includes(0.1));
    assert.equal(answer.series[0].samples.length, answer.steps);
    const none = await ask('query', '{ name = "nothing" } | rate()', '--explain');
    assert.equal(none.stdout, '');
    assert.match(none.stderr, /No span matches in the last 1h/);
    assert.match(none.stderr, /^Read to find them: parts \d+, /m);
    assert.equal((await ask('query', '{ } | rate()', '--step', '1ns')).status, 1);
  });

  test('points at what it does not understand', async () => {
    const { status, stdout, stderr } = await ask('query', '{ name = }');
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^pugmark query: expected .*, found "}"\n {2}\{ name = \}\n {11}\^\n$/);
  });

  test('says what is wrong with its arguments', async () => {
    for (const [args, says] of [
      [[], /which traces/], [['{}', '{}'], /one query/], [['{}', '--limit', '0'], /--limit "0"/],
      [['{}', '--since', 'never'], /--since "never"/], [['{}', '--nonsense'], /nonsense/],
    ]) {
      const { status, stdout, stderr } = await run(['query', ...args]);
      assert.deepEqual([status, stdout], [2, ''], `${args}`);
      assert.match(stderr, says);
    }
    const help = await run(['query', '--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /^usage: pugmark query/);
  });

  test('says what to do when no server answers', async () => {
    const nobody = await run(['query', '{}', '--server', 'http://127.0.0.1:1']);
    assert.deepEqual([nobody.status, nobody.stdout], [1, '']);
    assert.match(nobody.stderr, /nothing answers at http:\/\/127\.0\.0\.1:1\n.*pugmark serve/);
    const odd = await run(['query', '{}', '--server', 'file:///etc/passwd']);
    assert.equal(odd.status, 1);
    assert.match(odd.stderr, /is no server's address/);
    const other = await run(['query', '{}', '--server', server.endpoints.otlp_http]);
    assert.equal(other.status, 1);
    assert.match(other.stderr, /HTTP status 404; is it a pugmark server/);
  });
});

describe('pugmark trace', () => {
  const checkWaterfall = (stdout) => {
    assert.match(stdout, new RegExp(`^trace ${TRACE}\nGET /cart\n.* · 100 ms · 2 spans · 1 service · 1 error\n\n`));
    assert.match(stdout, /^GET \/cart {2}shop +━+ +100 ms$/m);
    assert.match(stdout, /^└─ load, "quoted"··\[31mred +━+╸? +25\.0 ms {2}✗$/m);
    assert.match(stdout, /┊ ERROR {4}no· answer\n/);
    assert.match(stdout, /┊ attempt {2}3\n/);
    assert.doesNotMatch(stdout, /[\x00-\x09\x0b-\x1f\x7f]/);
  };

  test('draws a waterfall', async () => {
    const { status, stdout, stderr } = await ask('trace', TRACE);
    assert.deepEqual([status, stderr], [0, '']);
    checkWaterfall(stdout);
  });

  test('draws one of a file, too', async () => {
    const file = path.join(scratch, 'spans.json');
    await writeFile(file, JSON.stringify(request));
    const { status, stdout } = await run(['trace', file]);
    assert.equal(status, 0);
    checkWaterfall(stdout);
    for (const option of [['--json'], ['--depth', '1']]) {
      const refused = await run(['trace', file, ...option]);
      assert.deepEqual([refused.status, refused.stdout], [2, '']);
      assert.match(refused.stderr, /--json and --depth need a server/);
    }
    await writeFile(file, '{"resourceSpans":[{"scopeSpans":7}]}');
    const bad = await run(['trace', file]);
    assert.equal(bad.status, 1);
    assert.match(bad.stderr, /at byte \d+, read as OTLP JSON: /);
  });

  test('uses ASCII where the terminal knows nothing else', async () => {
    const { stdout } = await run(['trace', TRACE, '--server', server.endpoints.page], { LC_ALL: 'C' });
    assert.match(stdout, /^`- load, "quoted"\?\?\[31mred +=+ +25\.0 ms {2}x$/m);
    assert.doesNotMatch(stdout, /[^\x0a\x20-\x7e]/);
  });

  test('gives machines the answer of the server', async () => {
    const { stdout } = await ask('trace', TRACE, '--json');
    assert.equal(JSON.parse(stdout).spans.length, 2);
  });

  test('says what it cannot find', async () => {
    const absent = await ask('trace', 'abcdef');
    assert.equal(absent.status, 1);
    assert.match(absent.stderr, /has no trace 00000000000000000000000000abcdef/);
    const odd = await ask('trace', 'no-such-file');
    assert.equal(odd.status, 2);
    assert.match(odd.stderr, /neither a trace id .* nor a file/);
    assert.equal((await run(['trace'])).status, 2);
  });
});
