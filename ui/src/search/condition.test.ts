import assert from 'node:assert/strict';
import test from 'node:test';
import { withCondition } from './condition';

test('a condition joins the filter that is there, or follows what is more than a filter', () => {
  assert.equal(withCondition('', '.a = 1'), '{ .a = 1 }');
  assert.equal(withCondition(' { } ', '.a = 1'), '{ .a = 1 }');
  assert.equal(withCondition('{ status = error || .b = "}" }', '.a = 1'), '{ status = error || .b = "}" && .a = 1 }');
  assert.equal(withCondition('{ .a = 2 } >> { .b = 1 }', '.a = 1'), '{ .a = 2 } >> { .b = 1 } | { .a = 1 }');
  assert.equal(withCondition('{ .a = 2 } | count() > 3', '.a = 1'), '{ .a = 2 } | count() > 3 | { .a = 1 }');
});
