import assert from 'node:assert/strict';
import test from 'node:test';
import { traceqlFor, typeOf, valueText } from './values';

test('every type of value has a text', () => {
  assert.equal(valueText({ intValue: '9223372036854775807' }), '9223372036854775807');
  assert.equal(valueText({ doubleValue: 1 }), '1.0');
  assert.equal(valueText({ doubleValue: 'NaN' }), 'NaN');
  assert.equal(valueText({ boolValue: false }), 'false');
  assert.equal(valueText({ arrayValue: { values: [{ intValue: '9007199254740993' }, { stringValue: 'x' }, {}] } }), '["9007199254740993","x",null]');
  assert.equal(valueText({ kvlistValue: { values: [{ key: '__proto__', value: { boolValue: true } }] } }), '{"__proto__":true}');
  assert.equal(valueText({ arrayValue: {} }), '[]');
  assert.equal(valueText(undefined), '');
  assert.equal(typeOf({}), 'none');
  assert.equal(typeOf({ stringValue: '' }), 'string');
});

test('an attribute becomes TraceQL with everything quoted that must be', () => {
  assert.equal(traceqlFor('span', { key: 'http.method', value: { stringValue: 'a "b" \\' } }), '{ span.http.method = "a \\"b\\" \\\\" }');
  assert.equal(traceqlFor('resource', { key: 'my key', value: { intValue: '5' } }), '{ resource."my key" = 5 }');
  assert.equal(traceqlFor('span', { key: 'x', value: { bytesValue: 'AA==' } }), null);
  assert.equal(traceqlFor('span', { key: 'x', value: { doubleValue: 2 } }), '{ span.x = 2.0 }');
});
