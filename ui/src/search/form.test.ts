import assert from 'node:assert/strict';
import test from 'node:test';
import { apiParams, emptyForm, formFromParams, paramsFromForm, parseTags, problems } from './form';

test('a form survives the way through the address', () => {
  const form = {
    ...emptyForm, q: '{ .a = "b c" && duration > 5ms }', service: 'api & co', operation: 'GET /x?y=1', tags: 'a=1 b="two words" c="say \\"hi\\""',
    minDuration: '1.5s', lookback: 'custom', start: '1700000000000000000', end: '1700000001000000000', limit: '200',
  };
  assert.deepEqual(formFromParams(new URLSearchParams(paramsFromForm(form).toString())), form);
  assert.equal(paramsFromForm(emptyForm).toString(), '');
  assert.deepEqual(formFromParams(new URLSearchParams()), emptyForm);
});

test('tags are split at spaces outside quotes', () => {
  assert.deepEqual(parseTags('a=1  b="two words" c="x \\" y" junk =5'), ['a=1', 'b=two words', 'c=x " y']);
  assert.deepEqual(parseTags('open="never closed'), ['open=never closed']);
  assert.deepEqual(parseTags(''), []);
});

test('a look-back leaves the end to the server, a custom time says both', () => {
  assert.deepEqual(apiParams(emptyForm, 3_600_000).start, '0');
  assert.equal(apiParams(emptyForm, 3_600_000).end, undefined);
  const custom = apiParams({ ...emptyForm, lookback: 'custom', start: '5', end: '9' }, 0);
  assert.deepEqual([custom.start, custom.end], ['5', '9']);
});

test('nonsense in the address becomes the default, nonsense in the form is named', () => {
  const form = formFromParams(new URLSearchParams('lookback=9999y&limit=-3&start=abc'));
  assert.deepEqual([form.lookback, form.limit, form.start], ['1h', '50', '']);
  assert.deepEqual(Object.keys(problems({ ...emptyForm, minDuration: '5 parsecs', tags: 'x' })).sort(), ['minDuration', 'tags']);
  assert.ok(problems({ ...emptyForm, minDuration: '2s', maxDuration: '1s' }).maxDuration);
  assert.deepEqual(problems(emptyForm), {});
});
