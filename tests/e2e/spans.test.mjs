// Every span that the requirements name for the sample system, out of the real programs, each where its work is done. The
// sniffer looks at the loopback interface and the prober sends a SYN of its own: what needs that is skipped for who is not root.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Server, randomHex, until } from './lib.mjs';
import { DECOYS, System, attribute, named, parentName, trace } from './decoys.mjs';

const run = promisify(execFile);

// The reference, with what each span is under; '' is the root of its trace, several names are all allowed.
const REFERENCE = {
  'api.login': '', 'api.change_password': '', 'api.get_logs': '', 'api.get_logs_histogram': '', 'api.get_bounties': '',
  'api.get_attackers': '', 'api.get_attacker_detail': '', 'api.get_attacker_commands': '', 'api.get_stats': '',
  'api.get_deckies': '', 'api.deploy_deckies': '', 'api.mutate_decky': '', 'api.update_mutate_interval': '',
  'api.get_config': '', 'api.update_deployment_limit': '', 'api.update_global_mutation_interval': '', 'api.create_user': '',
  'api.delete_user': '', 'api.update_user_role': '', 'api.reset_user_password': '', 'api.reinit': '', 'api.get_health': '',
  'api.stream_events': '',
  'collector.stream_container': '',
  'collector.event': ['decoy.http_request', 'decoy.ssh_session', 'decoy.telnet_session', 'sniffer.write_event',
    'prober.jarm_phase', 'prober.hassh_server', 'prober.tcpfp_phase'],
  'ingester.process_record': 'collector.event', 'ingester.extract_bounty': 'ingester.process_record',
  'profiler.incremental_update': '', 'profiler.update_profiles': 'profiler.incremental_update',
  'profiler.process_ip': ['ingester.process_record', 'profiler.update_profiles'],
  'profiler.timing_stats': 'profiler.build_behavior_record', 'profiler.classify_behavior': 'profiler.build_behavior_record',
  'profiler.detect_tools_from_headers': 'profiler.build_behavior_record', 'profiler.phase_sequence': 'profiler.build_behavior_record',
  'profiler.sniffer_rollup': 'profiler.build_behavior_record', 'profiler.build_behavior_record': 'profiler.process_ip',
  'profiler.behavior_summary': 'profiler.process_ip',
  'sniffer.worker': '', 'sniffer.sniff_loop': 'sniffer.worker', 'sniffer.tcp_syn_fingerprint': '',
  'sniffer.tls_client_hello': 'sniffer.tcp_syn_fingerprint', 'sniffer.tls_server_hello': 'sniffer.tcp_syn_fingerprint',
  'sniffer.tls_certificate': 'sniffer.tcp_syn_fingerprint', 'sniffer.parse_client_hello': 'sniffer.tls_client_hello',
  'sniffer.parse_server_hello': 'sniffer.tls_server_hello', 'sniffer.parse_certificate': 'sniffer.tls_certificate',
  'sniffer.ja3': 'sniffer.tls_client_hello', 'sniffer.ja3s': 'sniffer.tls_server_hello',
  'sniffer.ja4': 'sniffer.tls_client_hello', 'sniffer.ja4s': 'sniffer.tls_server_hello',
  'sniffer.session_resumption_info': ['sniffer.tls_client_hello', 'sniffer.tls_server_hello'],
  'sniffer.p0f_guess_os': 'sniffer.tcp_syn_fingerprint',
  'sniffer.write_event': ['sniffer.tcp_syn_fingerprint', 'sniffer.tls_client_hello', 'sniffer.tls_server_hello', 'sniffer.tls_certificate'],
  'prober.worker': '', 'prober.discover_attackers': 'prober.worker', 'prober.probe_cycle': 'prober.worker',
  'prober.jarm_phase': 'prober.probe_cycle', 'prober.hassh_phase': 'prober.probe_cycle', 'prober.tcpfp_phase': 'prober.probe_cycle',
  'prober.jarm_hash': 'prober.jarm_phase', 'prober.jarm_send_probe': 'prober.jarm_phase',
  'prober.hassh_server': 'prober.hassh_phase', 'prober.hassh_ssh_connect': 'prober.hassh_server',
  'prober.tcp_fingerprint': 'prober.tcpfp_phase', 'prober.tcpfp_send_syn': 'prober.tcp_fingerprint',
  'engine.deploy': ['api.deploy_deckies', 'mutator.mutate_decky'], 'engine.teardown': 'fleet.command',
  'engine.compose_with_retry': 'engine.deploy',
  'mutator.mutate_decky': ['api.mutate_decky', 'mutator.mutate_all'], 'mutator.mutate_all': 'mutator.watch_loop',
  'mutator.watch_loop': '',
  'correlation.ingest_file': '', 'correlation.ingest_file.summary': 'correlation.ingest_file',
  'correlation.traversals': ['ingester.process_record', 'correlation.ingest_file'],
  'correlation.report_json': 'correlation.traversals', 'correlation.traversal_syslog_lines': 'correlation.traversals',
  'logging.init_file_handler': '', 'logging.probe_log_target': '',
  'sse.emit_logs': 'api.stream_events',
};
const full = { skip: process.getuid() !== 0 && 'looking at packets takes root' };
const FAMILIES = /^(api|collector|ingester|profiler|sniffer|prober|engine|mutator|correlation|logging|sse)\./;
const FOE = '127.77.0.1'; // a machine of the attacker's: all of 127/8 is this one

/** Programs that are not of the sample system. */
const others = new Set();
process.on('exit', () => { for (const child of others) child.kill('SIGKILL'); });
function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  child.text = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text) => { child.text += text; });
  child.ended = once(child, 'exit').finally(() => others.delete(child));
  others.add(child);
  return child;
}

async function freePort(address) {
  const server = net.createServer().listen(0, address);
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A TLS handshake by OpenSSL's own client; resolves to what it said. */
async function handshake(port, ...args) {
  const child = start('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-bind', `${FOE}:0`, ...args]);
  child.stdin.end('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await child.ended;
  return child.text;
}

/** What an attacker has at home: a TLS server and an SSH server, in a run directory of their own. */
async function foeStarts(dir) {
  const key = path.join(dir, 'key.pem'), certificate = path.join(dir, 'certificate.pem');
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key,
    '-out', certificate, '-days', '30', '-subj', '/CN=foe']);
  const tls = await freePort(FOE), ssh = await freePort(FOE);
  const children = [
    start('openssl', ['s_server', '-accept', `${FOE}:${tls}`, '-key', key, '-cert', certificate, '-alpn', 'http/1.1', '-quiet']),
    start(path.join(DECOYS, 'decoy'), ['--dir', path.join(dir, 'foe'), '--kind', 'ssh', '--name', 'foe-ssh', '--address', FOE,
      '--port', String(ssh), '--banner', 'SSH-2.0-OpenSSH_5.3'])];
  for (const port of [tls, ssh]) {
    await until('the foe to listen', () => new Promise((resolve) => {
      const socket = net.connect(port, FOE, () => { socket.destroy(); resolve(true); }).on('error', () => resolve(undefined));
    }));
  }
  return { tls, ssh, end: async () => { for (const child of children) { child.kill('SIGTERM'); await child.ended; } } };
}

/** The users' part: every endpoint of the API. Resolves to what some of them said. */
async function everyEndpoint(system, attacker) {
  const send = (method, pathname, body, headers) => system.ask(pathname, {
    method, body: body && JSON.stringify(body), headers: headers ?? { authorization: `Bearer ${system.token}` } });
  const said = {};
  for (const pathname of ['/logs', '/logs/histogram', '/bounty', '/attackers', '/stats', '/health', `/attackers/${attacker}/commands`])
    assert.equal((await system.ask(pathname))[0], 200, pathname);
  assert.equal((await send('POST', '/fleet/deploy', { deckies: [{ name: 'decky-01', service: 'ssh' }, { name: 'decky-02', service: 'http' }] }))[0], 200);
  [, said.deckies] = await system.ask('/fleet/deckies');
  [said.mutated, said.face] = await send('POST', '/fleet/mutate/decky-02');
  assert.equal((await send('PUT', '/config/deployment-limit', { deployment_limit: 5 }))[0], 200);
  assert.equal((await send('PUT', '/config/global-mutation-interval', { interval_s: 3600 }))[0], 200);
  assert.equal((await send('POST', '/fleet/mutate-interval/decky-01', { interval_s: 1 }))[0], 200);
  let user;
  [said.created, user] = await send('POST', '/config/users', { username: 'eve', password: 'a long one', role: 'viewer' });
  assert.equal((await send('PUT', `/config/users/${user.uuid}/role`, { role: 'admin' }))[0], 200);
  assert.equal((await send('PUT', `/config/users/${user.uuid}/password`, { new_password: 'another one' }))[0], 200);
  const [, login] = await send('POST', '/auth/login', { username: 'eve', password: 'another one' }, {});
  const eve = { authorization: `Bearer ${login.token}` };
  [said.beforeChange] = await send('GET', '/stats', undefined, eve);
  assert.equal((await send('POST', '/auth/change-password', { old_password: 'another one', new_password: 'her own one' }, eve))[0], 200);
  [said.afterChange] = await send('GET', '/stats', undefined, eve); // the sessions of the old password are over
  [, said.config] = await system.ask('/config');
  assert.equal((await send('DELETE', `/config/users/${user.uuid}`))[0], 200);
  return said;
}

/** All of it, once; ended, and its traces read, before the first test looks. */
let made;
const aFullSystem = () => made ??= (async () => {
  const server = await Server.start(), lines = [];
  const siem = net.createServer((socket) => { socket.setEncoding('utf8').on('data', (text) => lines.push(text)); }).listen(0, '127.0.0.1');
  await once(siem, 'listening');
  const system = await System.start(server, [], { correlation: ['--siem', `127.0.0.1:${siem.address().port}`] });
  const scratch = await mkdtemp(path.join(tmpdir(), 'pugmark-foe-')), foe = await foeStarts(scratch);
  for (const [name, version] of [['tls-01', '1.2'], ['tls-02', '1.3']])
    system.run(name, 'decoy', '--kind', 'https', '--name', name, '--tls-max', version);
  for (const name of ['tls-01', 'tls-02']) await system.listens(name);
  const capture = path.join(scratch, 'capture.pcap');
  system.run('sniffer', 'sniffer', '--interface', 'lo', '--decky', 'tls-01', '--decky', 'tls-02', '--write', capture);
  await system.listens('sniffer-01');
  system.run('engine', 'engine');
  system.run('mutator', 'mutator');

  await system.ask('/stats'); // logs in
  const stream = new AbortController();
  const events = await fetch(`http://127.0.0.1:${system.ports.api}/stream`,
    { signal: stream.signal, headers: { authorization: `Bearer ${system.token}` } });
  const reader = events.body.getReader();
  await reader.read();

  await system.talk('web-01', FOE, 'POST /login HTTP/1.1\r\nUser-Agent: sqlmap/1.7\r\nContent-Length: 23\r\n\r\nusername=a&password=b12');
  await system.talk('telnet-01', FOE, 'root\r\nxc3511\r\nid\r\nexit\r\n');
  const session = path.join(scratch, 'session.pem'), said = {};
  said.first = await handshake(system.ports['tls-01'], '-servername', 'router.example', '-alpn', 'h2,http/1.1', '-sess_out', session);
  said.again = await handshake(system.ports['tls-01'], '-sess_in', session);
  said.newer = await handshake(system.ports['tls-02'], '-servername', 'router.example');
  const sniffed = await until('what the sniffer saw', async () => {
    const rows = await system.sql('SELECT * FROM logs WHERE service=\'sniffer\' ORDER BY id');
    return rows.length >= 10 ? rows.map((row) => ({ ...row, fields: JSON.parse(row.fields) })) : undefined;
  });
  await reader.read();
  stream.abort();
  const attacker = await until('the profile', async () => {
    const [, rows] = await system.ask(`/attackers?ip=${FOE}`);
    return rows[0]?.correlated && rows[0]?.summary ? rows[0].uuid : undefined;
  });
  const api = await everyEndpoint(system, attacker);

  const prober = system.run('prober', 'prober', '--once', '--quiet-s', '0', '--tls', String(foe.tls), '--ssh', String(foe.ssh),
    '--tcp', String(foe.tls));
  await prober.ended;
  system.running.delete('prober');
  await until('the probes in the pipeline', async () =>
    ((await system.sql('SELECT * FROM logs WHERE service=\'prober\'')).length >= 3 ? true : undefined));
  const probes = await system.sql('SELECT * FROM probes ORDER BY kind');
  const [, detail] = await until('the attacker with all that is known', async () => {
    const answer = await system.ask(`/attackers/${attacker}`);
    return answer[1].behavior?.tcp?.ja4 ? answer : undefined;
  });
  await until('the mutator', async () => // its port is another one than the deployment's
    ((await system.sql('SELECT port FROM deckies WHERE name=\'decky-01\''))[0].port !== api.deckies[0].port ? true : undefined));
  const teardown = system.run('teardown', 'engine', 'teardown', 'decky-01', 'decky-02');
  await teardown.ended;
  system.running.delete('teardown');
  const before = await system.sql('SELECT count(*) AS n FROM logs');
  const [reinit] = await system.ask('/config/reinit', { method: 'POST', headers: { authorization: `Bearer ${system.token}` } });
  const left = await system.sql('SELECT count(*) AS n FROM logs');
  const texts = Object.fromEntries([...system.running].map(([name, child]) => [name, child]));
  await foe.end();
  for (const name of [...system.running.keys()]) await system.end(name);
  siem.close();
  return { server, system, scratch, foe, capture, said, sniffed, api, probes, detail, lines, teardown: teardown.text, before, reinit, left, texts };
})();

after(async () => {
  if (!made) return;
  const { server, system, scratch } = await made;
  await rm(system.dir, { recursive: true });
  await rm(scratch, { recursive: true });
  await server.stop();
});

/** Every trace of the server, by the names in it. */
let read;
const everyTrace = () => read ??= (async () => {
  const { server } = await aFullSystem();
  const { operations } = await server.get('/api/pugmark/operations');
  const ids = new Set();
  for (const { name } of operations) {
    const { traces } = await server.get(`/api/pugmark/search?operation=${encodeURIComponent(name)}&limit=1000`);
    for (const { traceId } of traces) ids.add(traceId);
  }
  const traces = [];
  for (const id of ids) traces.push(await trace(server, id, () => true));
  return traces;
})();

test('every span of the reference comes out, and no other of its families', full, async () => {
  const names = new Set((await everyTrace()).flatMap((found) => found.spans.map((span) => span.name)));
  assert.deepEqual(Object.keys(REFERENCE).filter((name) => !names.has(name)), [], 'missing');
  assert.deepEqual([...names].filter((name) => FAMILIES.test(name) && !(name in REFERENCE)), [], 'not in the reference');
});

test('every method of the repository comes out as db.<method>, and no other', full, async () => {
  const header = await readFile(fileURLToPath(new URL('../../examples/decoys/repository.h', import.meta.url)), 'utf8');
  const methods = [...header.matchAll(/^ {4}X\(T, int, (\w+),/gm)].map((match) => `db.${match[1]}`).sort();
  const names = new Set((await everyTrace()).flatMap((found) => found.spans.map((span) => span.name)));
  assert.ok(methods.length > 30, `only ${methods.length} methods were found in the header`);
  assert.deepEqual([...names].filter((name) => name.startsWith('db.')).sort(), methods);
});

test('every span of the reference has the parent that did the work around it, and none is an orphan', full, async () => {
  const wrong = new Set();
  for (const found of await everyTrace()) {
    if (found.orphanCount) wrong.add(`${found.orphanCount} orphans in ${found.traceId}`);
    for (const span of found.spans) {
      const allowed = REFERENCE[span.name];
      if (allowed === undefined) continue;
      const parent = span.parentSpanId ? parentName(found, span) ?? 'a missing span' : '';
      // A decoy whose visitor says nothing, and a line without context, begin a trace of their own.
      if (![allowed].flat().includes(parent)) wrong.add(`${span.name} under '${parent}'`);
    }
  }
  assert.deepEqual([...wrong], []);
});

test('a connection is one trace: SYN, hellos, certificate, and through the pipeline to the attacker\'s profile', full, async () => {
  const { sniffed } = await aFullSystem();
  const ids = new Set(sniffed.slice(0, 4).map((row) => row.trace_id));
  assert.equal(ids.size, 1, 'four events of one connection');
  const found = (await everyTrace()).find((one) => one.traceId === [...ids][0]);
  assert.deepEqual(found.spans.filter((span) => !span.parentSpanId).map((span) => span.name), ['sniffer.tcp_syn_fingerprint']);
  const [root] = found.spans.filter((span) => !span.parentSpanId);
  const loops = (await everyTrace()).flatMap((one) => named(one, 'sniffer.sniff_loop'));
  assert.deepEqual(root.links.map((link) => link.spanId), loops.map((loop) => loop.spanId));
  assert.deepEqual([...new Set(found.spans.map((span) => span.service))].filter((name) => !['profiler', 'correlation'].includes(name)).sort(),
    ['collector', 'ingester', 'sniffer']);
  assert.equal(named(found, 'collector.event').length, 4);
});

test('the sniffer sees what OpenSSL says of the same handshakes', full, async () => {
  const { sniffed, said, texts } = await aFullSystem();
  const of = (type) => sniffed.filter((row) => row.event_type === type).map((row) => row.fields);
  assert.deepEqual(sniffed.map((row) => row.attacker_ip), Array(sniffed.length).fill(FOE));
  const [first, again, newer] = of('tls_client_hello'), [answer, reused, modern] = of('tls_server_hello');
  assert.equal(first.server_name, 'router.example');
  assert.match(first.ja4, /^t13d\d{4}h2_[0-9a-f]{12}_[0-9a-f]{12}$/);
  assert.match(again.ja4, /^t13i\d{4}00_/, 'no name, no protocol');
  assert.equal(newer.ja4.slice(0, 4), 't13d');
  assert.equal(answer.alpn, 'http/1.1');
  assert.match(answer.ja4s, /^t12\d\dh1_/);
  assert.match(modern.ja4s, /^t13\d\d00_13/);
  // A digest can be checked without knowing the recipe: each is made of the raw form beside it.
  const short = (text) => createHash('sha256').update(text).digest('hex').slice(0, 12);
  for (const hello of [first, again, newer]) {
    const [a, b, ...c] = hello.ja4_r.split('_');
    assert.equal(hello.ja4, `${a}_${short(b)}_${short(c.join('_'))}`);
  }
  assert.equal(answer.ja4s, answer.ja4s_r.replace(/_[^_]*$/, (rest) => `_${short(rest.slice(1))}`));
  assert.deepEqual([first.resumption_offered, again.resumption_offered, answer.resumed, reused.resumed], ['none', 'ticket', 'false', 'true']);
  assert.match(said.again, /Reused, TLSv1\.2/);
  assert.match(said.newer, /TLSv1\.3/);
  const certificates = of('tls_certificate'); // not with the session that was taken up, not in TLS 1.3
  assert.equal(certificates.length, 1);
  assert.equal(certificates[0].subject, 'CN=tls-01,O=Router');
  assert.equal(certificates[0].self_signed, 'true');
  const pem = said.first.match(/-----BEGIN CERTIFICATE-----([^-]+)-----END/)[1];
  assert.equal(certificates[0].sha256, createHash('sha256').update(Buffer.from(pem, 'base64')).digest('hex'));
  const syns = of('tcp_syn_fingerprint');
  assert.equal(syns.length, 3);
  for (const syn of syns) {
    assert.match(syn.signature, /^4:64:0:\d+:[^:]+:mss,sok,ts,nop,ws:df,id\+:0$/);
    assert.match(syn.os, /^Linux/);
  }
  assert.equal(texts.sniffer.text, '');
});

test('the sniffer reads back its own capture to the same events, without privileges', full, async () => {
  const { capture, sniffed, scratch } = await aFullSystem();
  const child = start(path.join(DECOYS, 'sniffer'), ['--dir', path.join(scratch, 'again'), '--read', capture],
    { env: { ...process.env, PUG_TRACING: 'false' } });
  const [code] = await child.ended;
  assert.equal(code, 0, child.text);
  const lines = (await readFile(path.join(scratch, 'again/containers/sniffer-01.log'), 'utf8')).trimEnd().split('\n');
  assert.deepEqual(lines.map((line) => line.match(/ - (\w+) \[/)[1]).sort(), sniffed.map((row) => row.event_type).sort());
  for (const row of sniffed.filter((one) => one.fields.ja4))
    assert.ok(lines.some((line) => line.includes(`src_port="${row.fields.src_port}"`) && line.includes(`ja4="${row.fields.ja4}"`)));
});

test('the prober finds the attacker\'s servers: JARM, HASSH, and his TCP', full, async () => {
  const { probes, foe, detail } = await aFullSystem();
  const found = Object.fromEntries(probes.map((row) => [row.kind, row]));
  assert.deepEqual(Object.keys(found), ['cycle', 'hassh_fingerprint', 'jarm_fingerprint', 'tcpfp_fingerprint']);
  assert.ok(probes.every((row) => row.ip === FOE));
  // The public vector: the HASSH of OpenSSH 5.3's lists is the MD5 of what the specification prints for it.
  assert.equal(found.hassh_fingerprint.port, foe.ssh);
  assert.equal(found.hassh_fingerprint.text, 'SSH-2.0-OpenSSH_5.3');
  assert.equal(found.hassh_fingerprint.hash, createHash('md5').update('diffie-hellman-group-exchange-sha256,'
    + 'diffie-hellman-group-exchange-sha1,diffie-hellman-group14-sha1,diffie-hellman-group1-sha1;aes128-ctr,aes192-ctr,'
    + 'aes256-ctr,arcfour256,arcfour128,aes128-cbc,3des-cbc,blowfish-cbc,cast128-cbc,aes192-cbc,aes256-cbc,arcfour,'
    + 'rijndael-cbc@lysator.liu.se;hmac-md5,hmac-sha1,umac-64@openssh.com,hmac-ripemd160,hmac-ripemd160@openssh.com,'
    + 'hmac-sha1-96,hmac-md5-96;none,zlib@openssh.com').digest('hex'));
  assert.match(found.jarm_fingerprint.hash, /^[0-9a-f]{62}$/);
  assert.match(found.jarm_fingerprint.hash, /^(?!0{30})/);
  assert.match(found.tcpfp_fingerprint.text, /^raw 4:64:0:\d+:[^:]+:mss,sok,ts,nop,ws:df:0$/, 'a SYN of our own was answered');
  assert.deepEqual(detail.probes.map((row) => row.kind).sort(), ['hassh_fingerprint', 'jarm_fingerprint', 'tcpfp_fingerprint']);
  assert.ok(Object.keys(detail.behavior.tcp.ja4).length >= 2, 'the profile has what the sniffer saw');
});

test('a probe cycle links to the row that brought the attacker here', full, async () => {
  const cycles = (await everyTrace()).flatMap((found) => named(found, 'prober.probe_cycle'));
  assert.equal(cycles.length, 1);
  assert.equal(attribute(cycles[0], 'attacker.ip'), FOE);
  const rows = (await everyTrace()).flatMap((found) => named(found, 'ingester.process_record')).map((span) => span.spanId);
  assert.equal(cycles[0].links.length, 1);
  assert.ok(rows.includes(cycles[0].links[0].spanId));
  const sent = (await everyTrace()).flatMap((found) => named(found, 'prober.jarm_send_probe'));
  assert.equal(sent.length, 10);
});

test('the fleet is deployed, mutated and torn down by the engine, in the trace of whoever asked', full, async () => {
  const { api, teardown } = await aFullSystem();
  assert.deepEqual(api.deckies.map((decky) => [decky.name, decky.service]), [['decky-01', 'ssh'], ['decky-02', 'http']]);
  assert.equal(api.mutated, 200);
  assert.equal(api.face.state, 'running');
  assert.notEqual(api.face.banner, '');
  const traces = await everyTrace();
  const deploy = traces.find((found) => named(found, 'api.deploy_deckies').length);
  assert.deepEqual([...new Set(deploy.spans.map((span) => span.service))].sort(), ['api', 'engine']);
  assert.equal(named(deploy, 'engine.compose_with_retry').length, 2);
  const changed = traces.filter((found) => named(found, 'mutator.watch_loop').length);
  assert.ok(changed.some((found) => named(found, 'engine.compose_with_retry').length));
  assert.deepEqual(JSON.parse(teardown).sort(), ['decky-01', 'decky-02']);
});

test('the API keeps roles and passwords apart', full, async () => {
  const { api, reinit, before, left } = await aFullSystem();
  assert.equal(api.created, 200);
  assert.deepEqual([api.beforeChange, api.afterChange], [403, 401], 'first the password, and then a new login');
  assert.deepEqual([api.config.deployment_limit, api.config.global_mutation_interval_s], [5, 3600]);
  assert.deepEqual(api.config.users.map((user) => [user.name, user.role]), [['admin', 'admin'], ['eve', 'admin']]);
  assert.ok(api.config.users.every((user) => !('password_hash' in user)));
  assert.equal(reinit, 200);
  assert.ok(before[0].n > 0);
  assert.equal(left[0].n, 0);
});

test('traversals reach the SIEM that was asked whether it listens', full, async () => {
  const { lines } = await aFullSystem();
  assert.ok(lines.join('').split('\n').some((line) => line.startsWith('<132>1 ') && line.includes(`attacker_ip="${FOE}"`)), lines.join(''));
});

test('the engine tries a decoy that does not start again, says so, and runs the others', async () => {
  const server = await Server.start();
  const system = await System.start(server, ['collector', 'ingester', 'profiler', 'correlation', 'api']);
  const taken = net.createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const file = path.join(system.dir, 'wanted.json');
  await writeFile(file, JSON.stringify({ deckies: [{ name: 'stuck', service: 'http', port: taken.address().port },
    { name: 'fine', service: 'telnet', banner: 'BusyBox v1.36.1' }, { name: 'no/name', service: 'http' }, { name: 'what', service: 'gopher' }] }));
  const engine = system.run('engine', 'engine');
  await until('the engine', () => readFile(path.join(system.dir, 'fleet.json')).catch(() => new Promise((resolve) => {
    net.connect(path.join(system.dir, 'engine.sock')).on('connect', () => resolve(true)).on('error', () => resolve(undefined));
  })));
  const deploy = system.run('deploy', 'engine', 'deploy', file);
  assert.deepEqual(await deploy.ended, [0, null], deploy.text);
  system.running.delete('deploy');
  const states = JSON.parse(deploy.text);
  assert.deepEqual(states.map((one) => one.state), ['failed', 'running', 'refused', 'refused']);
  assert.match(states[3].error, /http, https, ssh or telnet/);
  assert.match(engine.text, /the decoy stuck does not start/);
  system.ports.fine = states[1].port;
  assert.match(await system.talk('fine', '127.9.9.40', 'a\r\nb\r\nexit\r\n'), /BusyBox v1\.36\.1/);

  const stuck = await until('the span of the failed one', async () => {
    const { traces } = await server.get('/api/pugmark/search?operation=engine.compose_with_retry');
    const found = traces.length ? await trace(server, traces[0].traceId, () => true) : undefined;
    return found && named(found, 'engine.compose_with_retry').find((span) => span.status.code === 'ERROR');
  });
  assert.equal(attribute(stuck, 'decky'), 'stuck');
  assert.equal(attribute(stuck, 'tries'), '3');
  assert.equal(stuck.events.length, 2);

  // Killed, it takes its decoys with it; started again, it runs what it ran, where it ran.
  await system.end('engine', 'SIGKILL');
  await until('the decoy to end', () => system.talk('fine', '127.9.9.40', '').then(() => undefined, () => true));
  taken.close();
  system.run('engine', 'engine');
  await until('both decoys', async () => (await system.talk('fine', '127.9.9.40', 'a\r\nb\r\nexit\r\n').catch(() => '')).includes('BusyBox')
    || undefined);
  await system.end('engine');
  await assert.rejects(system.talk('fine', '127.9.9.40', ''), 'the decoys end with their engine');
  await system.stop();
  await server.stop();
});

test('the prober asks nobody but this machine, unless told otherwise', async () => {
  const system = await System.start(null, ['collector', 'ingester', 'profiler', 'correlation']);
  await run('sqlite3', [path.join(system.dir, 'decoys.db'), 'INSERT INTO attackers VALUES'
    + '(\'u1\',\'192.0.2.1\',\'2026-01-01T00:00:00Z\',\'2026-01-01T00:00:00Z\',1,1,1,\'[]\',\'[]\')']);
  const prober = system.run('prober', 'prober', '--once', '--tls', '443', '--tcp', '443');
  assert.deepEqual(await prober.ended, [0, null]);
  system.running.delete('prober');
  assert.match(prober.text, /192\.0\.2\.1 is not this machine: not probed/);
  assert.deepEqual((await system.sql('SELECT kind FROM probes')).map((row) => row.kind), ['refused']);
  await system.stop();
});

test('without CAP_NET_RAW the sniffer says what it takes, and the prober asks the kernel', { skip: process.getuid() !== 0 && 'not root' }, async () => {
  const system = await System.start(null, ['collector', 'ingester', 'profiler', 'correlation']);
  const unprivileged = (program, ...args) => start('setpriv', ['--bounding-set', '-net_raw', '--inh-caps', '-net_raw',
    path.join(DECOYS, program), '--dir', system.dir, ...args], { env: system.env });
  const sniffer = unprivileged('sniffer', '--interface', 'lo');
  assert.deepEqual(await sniffer.ended, [1, null]);
  assert.match(sniffer.text, /takes root or CAP_NET_RAW/);
  await run('sqlite3', [path.join(system.dir, 'decoys.db'), 'INSERT INTO attackers VALUES'
    + '(\'u1\',\'127.0.0.1\',\'2026-01-01T00:00:00Z\',\'2026-01-01T00:00:00Z\',1,1,1,\'[]\',\'[]\')']);
  const prober = unprivileged('prober', '--once', '--tcp', String(system.ports['web-01']));
  assert.deepEqual(await prober.ended, [0, null], prober.text);
  const [row] = await system.sql('SELECT * FROM probes WHERE kind=\'tcpfp_fingerprint\'');
  assert.match(row.text, /^info mss=\d+,wscale=\d+,sok,ts/);
  await system.stop();
});

test('a capture that is none is refused with a reason', full, async () => {
  const { scratch } = await aFullSystem();
  const file = path.join(scratch, 'no.pcap');
  await writeFile(file, 'this is no capture, but long enough to be looked at');
  for (const [args, words] of [[['--read', file], /cannot read the capture/], [['--read', path.join(scratch, 'nothing')], /cannot read the capture/],
    [['--interface', 'nothing0'], /cannot look at nothing0/], [['--read', file, '--interface', 'lo'], /usage/]]) {
    const child = start(path.join(DECOYS, 'sniffer'), ['--dir', path.join(scratch, 'none'), ...args]);
    const [code] = await child.ended;
    assert.notEqual(code, 0);
    assert.match(child.text, words);
  }
});
