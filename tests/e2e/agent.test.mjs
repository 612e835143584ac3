// The sample agent: a scripted conversation that goes everywhere, with real stand-ins over real sockets and pipes. What it
// is an example of must hold: every span of the instrumentation map is there, at its place, and one trace crosses all
// processes.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Server, until } from './lib.mjs';

const AGENT = path.join(process.env.AGENT ?? fileURLToPath(new URL('../../build/examples/agent', import.meta.url)), 'agent');

// Everything that an agent's spans begin with, and all there are.
const MAP = {
  agent: ['turn', 'prepare_context', 'process_response', 'security_prescreen', 'tool_loop', 'tool_exec', 'tool_batch', 'learning',
    'code_index', 'mcp_dispatch', 'plan_execute', 'persist_message', 'restore_history'],
  context: ['assembly', 'fetch_recall', 'fetch_summaries', 'fetch_code', 'fetch_cross_session', 'fetch_graph_facts', 'compaction',
    'check_summarization', 'microcompact'],
  llm: ['chat', 'chat_stream', 'embed', 'extract', 'http_request', 'retry', 'router'],
  memory: ['remember', 'recall', 'summarize', 'graph_extract', 'persona_extract', 'cross_session', 'vector_store', 'sqlite',
    'admission', 'compaction_probe', 'forgetting', 'consolidation', 'consolidation_loop'],
  tool: ['execute', 'execute_call', 'shell', 'web_scrape', 'file', 'search_code', 'audit_log', 'cache'],
  skill: ['registry_load', 'match', 'matcher_sync', 'hot_reload', 'generate', 'evolution', 'bm25_search', 'qdrant_match'],
  mcp: ['connect', 'connect_url', 'list_tools', 'call_tool', 'shutdown', 'tool_refresh'],
  channel: ['cli', 'telegram', 'discord', 'slack', 'status_send', 'status_recv', 'skill_reload_send', 'skill_reload_recv',
    'config_reload_send', 'config_reload_recv', 'elicitation_send', 'elicitation_recv', 'metrics_send', 'metrics_recv',
    'cancel_send', 'cancel_recv'],
};
const NAMES = Object.entries(MAP).flatMap(([prefix, names]) => names.map((name) => `${prefix}.${name}`)).sort();

// Whose child each one may be. What is not here may stand anywhere ("memory.sqlite").
const PARENTS = {
  'agent.turn': [''],
  'agent.security_prescreen': ['agent.turn'], 'agent.restore_history': ['agent.turn'], 'agent.persist_message': ['agent.turn'],
  'agent.prepare_context': ['agent.turn'], 'agent.tool_loop': ['agent.turn'], 'agent.learning': ['agent.turn', ''],
  'agent.process_response': ['agent.tool_loop'], 'agent.tool_batch': ['agent.tool_loop'], 'agent.plan_execute': ['agent.tool_loop'],
  'agent.tool_exec': ['agent.tool_loop', 'agent.tool_batch', 'agent.plan_execute'],
  'agent.mcp_dispatch': ['agent.tool_loop', 'agent.tool_batch', 'agent.plan_execute'],
  'agent.code_index': ['startup'],
  'context.assembly': ['agent.prepare_context'], 'context.microcompact': ['agent.tool_loop'],
  'context.fetch_recall': ['context.assembly'], 'context.fetch_summaries': ['context.assembly'], 'context.fetch_code': ['context.assembly'],
  'context.fetch_cross_session': ['context.assembly'], 'context.fetch_graph_facts': ['context.assembly'],
  'context.check_summarization': ['context.assembly'], 'context.compaction': ['context.assembly'],
  'llm.router': ['agent.tool_loop', 'memory.summarize', 'skill.generate', 'skill.evolution'],
  'llm.chat': ['llm.router'], 'llm.chat_stream': ['llm.router'],
  'llm.embed': ['memory.remember', 'memory.recall', 'skill.matcher_sync', 'skill.qdrant_match'],
  'llm.extract': ['memory.graph_extract', 'memory.persona_extract'],
  'llm.http_request': ['llm.chat', 'llm.chat_stream', 'llm.embed', 'llm.extract', 'llm.retry'],
  'llm.retry': ['llm.chat', 'llm.chat_stream', 'llm.embed', 'llm.extract'],
  'memory.remember': ['agent.turn'], 'memory.admission': ['memory.remember'], 'memory.graph_extract': ['memory.remember'],
  'memory.persona_extract': ['memory.remember'], 'memory.recall': ['context.fetch_recall'], 'memory.summarize': ['context.compaction'],
  'memory.compaction_probe': ['context.check_summarization'], 'memory.consolidation_loop': [''],
  'memory.consolidation': ['memory.consolidation_loop'], 'memory.forgetting': ['memory.consolidation_loop'],
  'memory.cross_session': ['memory.consolidation_loop'],
  'tool.execute': ['agent.tool_exec'], 'tool.execute_call': ['tool.execute'], 'tool.cache': ['tool.execute'],
  'tool.audit_log': ['tool.execute', 'agent.mcp_dispatch'], 'tool.shell': ['tool.execute_call'], 'tool.file': ['tool.execute_call'],
  'tool.search_code': ['tool.execute_call'], 'tool.web_scrape': ['tool.execute_call'],
  'skill.registry_load': ['startup', 'skill.hot_reload'], 'skill.matcher_sync': ['startup', 'skill.hot_reload'], 'skill.hot_reload': [''],
  'skill.match': ['context.assembly'], 'skill.bm25_search': ['skill.match'], 'skill.qdrant_match': ['skill.match'],
  'skill.generate': ['agent.learning'], 'skill.evolution': ['agent.learning'],
  'mcp.connect': ['startup'], 'mcp.connect_url': ['startup'], 'mcp.list_tools': ['mcp.connect', 'mcp.connect_url', 'mcp.tool_refresh'],
  'mcp.call_tool': ['agent.mcp_dispatch'], 'mcp.tool_refresh': [''], 'mcp.shutdown': ['shutdown'],
  'channel.cli': ['', 'agent.turn'], 'channel.telegram': ['', 'agent.turn'], 'channel.discord': ['', 'agent.turn'], 'channel.slack': ['', 'agent.turn'],
  'channel.status_recv': ['channel.status_send'], 'channel.metrics_recv': ['channel.metrics_send'],
  'channel.elicitation_send': ['mcp.call_tool'], 'channel.elicitation_recv': ['channel.elicitation_send'],
  'channel.skill_reload_send': [''], 'channel.skill_reload_recv': ['channel.skill_reload_send'],
  'channel.config_reload_send': [''], 'channel.config_reload_recv': ['channel.config_reload_send'],
  'channel.cancel_send': ['shutdown'], 'channel.cancel_recv': ['channel.cancel_send', 'shutdown'],
  'model.chat': ['llm.http_request'], 'model.embed': ['llm.http_request'],
  'services.telegram': ['channel.telegram'], 'services.discord': ['channel.discord'], 'services.slack': ['channel.slack'],
  'services.page': ['tool.web_scrape'],
  'mcp_server.initialize': ['mcp_server.request'], 'mcp_server.list_tools': ['mcp_server.request'],
  'mcp_server.call_tool': ['mcp_server.request'], 'mcp_server.elicit': ['mcp_server.call_tool'],
};

const children = new Set();
process.on('exit', () => { for (const child of children) child.kill('SIGKILL'); });

/** Runs the agent to its end: {code, signal, stdout, stderr}. `lines`: its input; `meanwhile` is given the process. */
async function run(args, { env = {}, lines, meanwhile } = {}) {
  const clean = { ...process.env };
  delete clean.PUG_TRACING;
  const child = spawn(AGENT, args, { env: { ...clean, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
  children.add(child);
  let stdout = '', stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { stdout += text; });
  child.stderr.setEncoding('utf8').on('data', (text) => { stderr += text; });
  child.stdin.on('error', () => {}); // it may be gone already
  const closed = once(child, 'close').finally(() => children.delete(child));
  if (lines) child.stdin.end(lines.join('\n'));
  if (meanwhile) await meanwhile(child, () => stdout);
  const [code, signal] = await closed;
  return { code, signal, stdout, stderr };
}

const to = (server) => ({ PUG_TRACING: 'true', PUG_BACKEND: 'otlp', PUG_OTLP_ENDPOINT: server.endpoints.otlp_http });

/** Every span the server has, each with its service and trace, in `spans`; and by id. */
async function everything(server) {
  const { traces, more } = await server.get('/api/pugmark/search?limit=1000');
  assert.equal(more, false);
  const all = { traces, spans: [], by: new Map() };
  for (const { traceId } of traces) {
    const trace = await server.get(`/api/pugmark/traces/${traceId}`);
    for (const span of trace.spans) {
      span.traceId = traceId;
      span.service = trace.resources[span.resource].service;
      all.spans.push(span);
      all.by.set(`${traceId} ${span.spanId}`, span);
    }
  }
  for (const span of all.spans) span.parent = span.parentSpanId ? all.by.get(`${span.traceId} ${span.parentSpanId}`) : null;
  return all;
}

const named = (all, name) => all.spans.filter((span) => span.name === name);
const attribute = (span, key) => {
  const value = span.attributes.find((a) => a.key === key)?.value;
  return value && Object.values(value)[0];
};
const ancestor = (span, name) => {
  let at = span;
  while (at && at.name !== name) at = at.parent;
  return at;
};
const textOf = (all) => JSON.stringify(all.spans, (key, value) => (key === 'parent' ? undefined : value));

/** The demo, once, traced. */
let made;
const demo = () => (made ??= (async () => {
  const server = await Server.start();
  const result = await run(['--demo'], { env: to(server) });
  return { server, ...result, all: await everything(server) };
})());
after(async () => { if (made) await (await made).server.stop(); });

test('the agent shows a conversation and ends well', async () => {
  const { code, stdout, stderr } = await demo();
  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
  for (const line of ['agent: 3 miles are 4.83 km', 'agent: Releases Kettle 2.1 Boils faster & whistles softly.', 'agent: The notes are gone.',
    'agent: I remember: Kettle is written in C', 'agent: I will not read this: it wants to change my instructions.',
    'agent: I remember: Libwater belongs to the plumbing project.', 'agent: refused: this program is not allowed'])
    assert.ok(stdout.split('\n').includes(line), `${line} is not in:\n${stdout}`);
});

test('the agent emits every span of the map, and no other of its families', async () => {
  const { all } = await demo();
  const ours = new RegExp(`^(${Object.keys(MAP).join('|')})\\.`);
  assert.deepEqual([...new Set(all.spans.map((span) => span.name))].filter((name) => ours.test(name)).sort(), NAMES);
});

test('no span of the agent is an orphan, and none was lost', async () => {
  const { all } = await demo();
  assert.deepEqual(all.traces.filter((trace) => trace.orphanCount || !trace.hasRoot), []);
  assert.deepEqual(all.spans.filter((span) => span.parent === undefined).map((span) => span.name), []);
  assert.deepEqual(named(all, 'pugmark.lost'), []);
  assert.deepEqual(all.spans.filter((span) => attribute(span, 'pugmark.unfinished')).map((span) => span.name), []);
});

test('every span of the agent stands below the one whose work it is part of', async () => {
  const { all } = await demo();
  const wrong = new Set();
  for (const span of all.spans) {
    const parent = span.parent?.name ?? '';
    if (PARENTS[span.name] && !PARENTS[span.name].includes(parent)) wrong.add(`${span.name} below "${parent}"`);
  }
  assert.deepEqual([...wrong], []);
  const seen = new Set(all.spans.map((span) => `${span.name} < ${span.parent?.name ?? ''}`));
  for (const [name, parents] of Object.entries(PARENTS))
    assert.ok(parents.some((parent) => seen.has(`${name} < ${parent}`)), `${name} is nowhere below ${parents}`);
});

test('a turn of the agent is one trace, from the prescreen to the last memory', async () => {
  const { all } = await demo();
  const turns = named(all, 'agent.turn');
  assert.equal(turns.length, 29);
  for (const turn of turns) {
    const names = all.spans.filter((span) => span.parentSpanId === turn.spanId).map((span) => span.name);
    const refused = attribute(all.spans.find((span) => span.name === 'agent.security_prescreen' && span.parent === turn), 'security.verdict') === 'refused';
    const expected = refused ? ['agent.security_prescreen'] : ['agent.security_prescreen', 'agent.persist_message', 'agent.prepare_context', 'agent.tool_loop'];
    for (const name of expected) assert.ok(names.includes(name), `${name} is not in ${names}`);
    assert.equal(names.includes('agent.tool_loop'), !refused);
    assert.ok(names.includes(`channel.${attribute(turn, 'channel.name')}`), 'the answer was not sent in the turn');
  }
  for (const name of ['agent.tool_loop', 'context.assembly', 'llm.router', 'tool.execute', 'mcp.call_tool', 'memory.remember', 'skill.match'])
    for (const span of named(all, name).filter((s) => s.parent?.name !== 'skill.evolution' && s.parent?.name !== 'skill.generate'))
      assert.ok(ancestor(span, 'agent.turn'), `a ${name} is outside of a turn`);
});

test('a turn of the agent links to the span that received the message', async () => {
  const { all } = await demo();
  for (const turn of named(all, 'agent.turn')) {
    assert.equal(turn.links.length, 1);
    const received = all.by.get(`${turn.links[0].traceId} ${turn.links[0].spanId}`);
    assert.equal(received?.name, `channel.${attribute(turn, 'channel.name')}`);
    assert.equal(attribute(received, 'channel.operation'), 'receive');
    assert.notEqual(received.traceId, turn.traceId);
  }
  for (const round of named(all, 'memory.consolidation_loop'))
    assert.deepEqual(round.links.map((link) => all.by.get(`${link.traceId} ${link.spanId}`)?.name), ['session.end']);
});

test('the trace of the agent crosses to the models, the services and both MCP servers', async () => {
  const { all } = await demo();
  assert.deepEqual([...new Set(all.spans.map((span) => span.service))].sort(), ['agent', 'mcp-convert', 'mcp-notes', 'model', 'services']);
  for (const request of named(all, 'llm.http_request')) {
    const answers = all.spans.filter((span) => span.parent === request);
    assert.deepEqual(answers.map((span) => [span.service, span.kind]), [['model', 'SERVER']]);
  }
  const calls = named(all, 'mcp_server.request').filter((span) => attribute(span, 'mcp.method.name') === 'tools/call');
  assert.deepEqual([...new Set(calls.map((span) => `${span.service} ${attribute(span, 'network.transport')} ${span.parent.name}`))].sort(),
    ['mcp-convert tcp mcp.call_tool', 'mcp-notes pipe mcp.call_tool']);
  for (const call of calls) assert.ok(ancestor(call, 'agent.turn'));
});

test('the agent talks to all five providers, whole and in pieces, and says what that took', async () => {
  const { all } = await demo();
  const providers = (name) => [...new Set(named(all, name).map((span) => attribute(span, 'gen_ai.provider.name')))].sort();
  assert.deepEqual(providers('llm.chat'), ['anthropic', 'compatible', 'gcp.gemini', 'ollama', 'openai']);
  for (const provider of ['anthropic', 'ollama', 'openai']) assert.ok(providers('llm.chat_stream').includes(provider), provider);
  for (const name of ['llm.chat', 'llm.chat_stream', 'llm.extract'])
    for (const span of named(all, name).filter((s) => s.status.code !== 'ERROR')) {
      assert.equal(attribute(span, 'gen_ai.operation.name'), 'chat');
      assert.equal(attribute(span, 'gen_ai.request.model'), attribute(span, 'gen_ai.response.model'));
      assert.ok(Number(attribute(span, 'gen_ai.usage.input_tokens')) > 0);
      assert.ok(attribute(span, 'gen_ai.usage.output_tokens') !== undefined);
    }
});

test('the agent asks again where a model says so, and another one where it does not answer', async () => {
  const { all } = await demo();
  const retries = named(all, 'llm.retry').map((span) => [attribute(span.parent, 'gen_ai.provider.name'), attribute(span, 'retry.after_status'),
    attribute(span, 'http.request.resend_count'), attribute(span, 'retry.backoff_ms')]);
  assert.deepEqual(retries.sort(), [['anthropic', '429', '1', '15'], ['ollama', '500', '1', '20'], ['ollama', '500', '2', '40']]);
  const routed = named(all, 'llm.router').filter((span) => span.events.length)
    .map((span) => [span.events.map((event) => event.attributes[0].value.stringValue).join(), attribute(span, 'router.provider'), span.status.code]);
  assert.deepEqual(routed.sort(), [['ollama', 'gemini', 'UNSET'], ['openai', 'claude', 'UNSET']]);
});

test('only what was meant to fail is an error in the trace of the agent', async () => {
  const { all } = await demo();
  const errors = {};
  for (const span of all.spans.filter((s) => s.status.code === 'ERROR')) errors[span.name] = (errors[span.name] ?? 0) + 1;
  assert.deepEqual(errors, {
    'llm.http_request': 5, 'llm.chat_stream': 2, 'model.chat': 3, // 429 once, too slow once, 500 three times
    'tool.shell': 1, 'tool.web_scrape': 1, 'tool.execute_call': 2, 'tool.execute': 2, // a refused command, a page that is not there
  });
});

test('the agent writes no words, keys or secrets into the trace', async () => {
  const { all } = await demo();
  const text = textOf(all);
  for (const words of ['My name is Ada', 'sk-0123456789', 'stand-in-key', '7:stand-in', 'descaler', 'plumbing', 'boil'])
    assert.ok(!text.includes(words), `"${words}" is in the trace`);
});

test('the agent says the same with the traces in a file, and with none', async () => {
  const { stdout } = await demo();
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  const local = await run(['--demo'], { env: { PUG_TRACING: 'true', PUG_BACKEND: 'local', PUG_TRACE_DIR: dir } });
  assert.deepEqual([local.code, local.stderr], [0, '']);
  assert.equal(local.stdout, stdout);
  const names = new Set();
  const files = await readdir(dir);
  assert.equal(files.length, 5);
  for (const file of files) {
    const events = JSON.parse(await readFile(path.join(dir, file), 'utf8'));
    for (const event of events.traceEvents ?? events) names.add(event.name);
  }
  assert.deepEqual(NAMES.filter((name) => !names.has(name)), []);
  const off = await run(['--demo']);
  assert.deepEqual([off.code, off.stderr], [0, '']);
  assert.equal(off.stdout, stdout);
  await rm(dir, { recursive: true });
});

test('the agent remembers from one start to the next', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  const first = await run(['--dir', dir], { lines: ['The gate code of the garden is written on the shed.'] });
  assert.deepEqual([first.code, first.stderr], [0, '']);
  const second = await run(['--dir', dir, '--session', 'other'], { lines: ['Where is the gate code?', '/quit', 'never said'] });
  assert.deepEqual([second.code, second.stderr], [0, '']);
  assert.match(second.stdout, /^agent: I remember: The gate code of the garden is written on the shed\.$/m);
  assert.doesNotMatch(second.stdout, /never said/);
  await rm(dir, { recursive: true });
});

test('the audit log of the agent leads to the trace', async () => {
  const server = await Server.start();
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  const { code, stderr } = await run(['--dir', dir], { env: to(server), lines: ['list the files', 'convert 2 miles'] });
  assert.equal(code, 0, stderr);
  const all = await everything(server);
  const lines = (await readFile(path.join(dir, 'audit.jsonl'), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => [line.tool, line.failed]), [['shell', false], ['convert', false]]);
  for (const line of lines) {
    const [, traceId, spanId] = line._trace.traceparent.match(/^00-(.{32})-(.{16})-/);
    assert.equal(all.by.get(`${traceId} ${spanId}`)?.name, 'tool.audit_log');
  }
  await rm(dir, { recursive: true });
  await server.stop();
});

test('the agent takes up skills that appear while it runs, and says which files are none', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  const server = await Server.start();
  const result = await run(['--dir', dir], { env: to(server), meanwhile: async (child, stdout) => {
    child.stdin.write('list the files\n');
    await until('the first answer', () => (stdout().includes('main.c') ? true : undefined));
    await writeFile(path.join(dir, 'skills/broken.md'), 'no front matter');
    await writeFile(path.join(dir, 'skills/greet.md'), '---\nname: greet\ndescription: greetings for grandmothers\n---\nBe kind.\n');
    await until('the skill to be used', async () => {
      child.stdin.write('greetings for grandmothers?\n');
      const { traces } = await server.get(`/api/pugmark/search?q=${encodeURIComponent('{ name = "skill.match" && .skill.name = "greet" }')}`);
      return traces.length ? true : undefined;
    });
    child.stdin.end();
  } });
  assert.equal(result.code, 0);
  assert.match(result.stderr, /^agent: broken\.md is no skill/m);
  await rm(dir, { recursive: true });
  await server.stop();
});

test('the agent ends well when it is interrupted, and leaves no process behind', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  for (const signal of ['SIGINT', 'SIGTERM']) {
    let pid;
    const result = await run(['--dir', dir], { meanwhile: async (child, stdout) => {
      pid = child.pid;
      child.stdin.write('list the files\n');
      await until('an answer', () => (stdout().includes('kettle.c') ? true : undefined));
      child.kill(signal);
    } });
    assert.deepEqual([result.code, result.signal, result.stderr], [0, null, '']);
    const { stdout: left } = await promisify(execFile)('ps', ['-eo', 'pid,ppid,args']);
    assert.ok(!left.split('\n').some((line) => line.trim().split(/\s+/)[1] === String(pid)), left);
  }
  await rm(dir, { recursive: true });
});

test('the stand-ins end when the agent is killed', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'pugmark-agent-test-'));
  let pids = [];
  await run(['--dir', dir], { meanwhile: async (child, stdout) => {
    child.stdin.write('list the files\n');
    await until('an answer', () => (stdout().includes('kettle.c') ? true : undefined));
    const { stdout: all } = await promisify(execFile)('ps', ['-o', 'pid=', '--ppid', String(child.pid)]);
    pids = all.trim().split(/\s+/).map(Number);
    child.kill('SIGKILL');
  } });
  assert.equal(pids.length, 4);
  for (const pid of pids)
    await until(`process ${pid} to end`, async () => {
      const state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => 'gone');
      return state === 'gone' || /\) Z /.test(state) ? true : undefined;
    });
  await rm(dir, { recursive: true });
});
