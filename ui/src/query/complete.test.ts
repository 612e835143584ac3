import assert from 'node:assert/strict';
import test from 'node:test';
import { apply, choices, spotAt } from './complete';

/** The cursor is at the stroke. */
const at = (text: string) => spotAt(text.replace('¦', ''), text.indexOf('¦'));

test('what is wanted follows from the words before the cursor', () => {
  const cases: [string, string, string, string][] = [
    ['¦', 'start', '', ''],
    ['{ ¦', 'field', '', ''],
    ['{ dur¦', 'field', 'dur', ''],
    ['{ span.http.me¦', 'field', 'span.http.me', ''],
    ['{ duration ¦', 'compare', '', ''],
    ['{ status = ¦', 'value', '', 'status'],
    ['{ status = err¦', 'value', 'err', 'status'],
    ['{ .http.method = "G¦', 'value', '"G', '.http.method'],
    ['{ .a = "x" ¦', 'join', '', ''],
    ['{ duration > 5ms ¦', 'join', '', ''],
    ['{ .a = "x" && ¦', 'field', '', ''],
    ['{ (¦', 'field', '', ''],
    ['{ } ¦', 'after', '', ''],
    ['{ } >> ¦', 'start', '', ''],
    ['{ } | ¦', 'stage', '', ''],
    ['{ } | ra¦', 'stage', 'ra', ''],
    ['{ name = "} ¦', 'value', '"} ', 'name'],
    ['{ ¦ } | rate()', 'field', '', ''],
  ];
  for (const [text, wanted, prefix, field] of cases) {
    const spot = at(text);
    assert.deepEqual([spot.wanted, spot.prefix, spot.field], [wanted, prefix, field], text);
  }
});

test('a choice takes the place of the whole word, and no blank is doubled', () => {
  const put = (text: string, choice: string) => {
    const plain = text.replace('¦', '');
    const spot = at(text);
    const r = apply(plain, spot, { text: choice });
    return `${r.text.slice(0, r.cursor)}¦${r.text.slice(r.cursor)}`;
  };
  assert.equal(put('{ dur¦', 'duration '), '{ duration ¦');
  assert.equal(put('{ du¦ra > 5s }', 'duration '), '{ duration ¦> 5s }');
  assert.equal(put('{ .m = "G¦', '"GET" '), '{ .m = "GET" ¦');
});

test('what begins with the text comes before what has it inside', () => {
  const fields = [{ text: 'resource.name ' }, { text: 'span.http.method ' }];
  const found = choices(at('{ na¦'), fields, []).map((c) => c.text.trim());
  assert.equal(found[0], 'name');
  assert.ok(found.includes('rootName') && found.includes('resource.name') && !found.includes('span.http.method'));
  assert.deepEqual(choices(at('{ status = er¦'), [], [{ text: 'error ' }, { text: 'ok ' }]).map((c) => c.text), ['error ']);
});
